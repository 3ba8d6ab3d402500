import { backoffMs } from './backoff'
import { Op, parseFrame, type ClientFrame, type Seqs, type ServerFrame } from './protocol'

export type Status =
  | { state: 'connecting' }
  | { state: 'connected' }
  /** retryAt is by this machine's clock, in milliseconds. */
  | { state: 'waiting'; retryAt: number }
  /** The browser says that there is no network; it will say when there is. */
  | { state: 'offline' }
  | { state: 'stopped' }

/** What of WebSocket is used, so that a test can script the other end. */
export interface Socket {
  onopen: (() => void) | null
  onmessage: ((event: { data: unknown }) => void) | null
  onclose: ((event: { code: number; reason: string }) => void) | null
  send(data: string): void
  close(code?: number): void
}

export interface ConnectionOptions {
  url: string
  token: string
  openSocket: (url: string) => Socket
  /** What the first frame says beside the token, asked anew for each socket. */
  hello: () => { roomId?: number; resume?: Seqs }
  /** The last seq of each conversation, for the ping. */
  have: () => Seqs
  onFrame: (frame: ServerFrame) => void
  onStatus: (status: Status) => void
  /** The server has answered on this socket: the session is good and frames may be sent. */
  onReady: () => void
  /**
   * The server did not take this client for who it is: the session may be over, or authentication came too late on a
   * slow network. Another socket is opened unless stop is called.
   */
  onDoubt: () => void
  /** The session is over and no socket will be opened again. code is the protocol's word. */
  onEnded: (code: string, message: string) => void
  random?: () => number
}

export const pingMs = 25_000
/** An answer to a ping that takes longer means that the socket is dead, whatever the browser thinks. */
export const answerMs = 10_000
/** A socket that lived this long was good: the next failure starts the backoff anew. */
const stableMs = 10_000

/** Ends of a connection that are about its session. */
const endings: Record<number, string> = { 1008: 'unauthenticated', 4001: 'session_ended', 4002: 'replaced' }
const endingCodes = new Set(Object.values(endings))

/**
 * One websocket at a time, opened again until the session ends or stop is called.
 *
 * connecting → connected → waiting → connecting …; offline instead of waiting while there is no network. Frames of a
 * socket that was given up are ignored.
 */
export class Connection {
  private socket: Socket | null = null
  private ready = false
  private readyAt = 0
  private attempt = 0
  /** When a server that goes away wants this client back. */
  private returnAt = 0
  private fatal: { code: string; message: string } | null = null
  private ended = false
  private online = true
  private retry: Timer = undefined
  private ping: Timer = undefined
  private watchdog: Timer = undefined
  private leave: Timer = undefined

  private readonly options: ConnectionOptions

  constructor(options: ConnectionOptions) {
    this.options = options
  }

  get connected(): boolean {
    return this.ready
  }

  start(): void {
    this.open()
  }

  /** Closes for good, without a word to the session. */
  stop(): void {
    this.ended = true
    this.drop(1000)
    this.options.onStatus({ state: 'stopped' })
  }

  /** Sends if connected; false if the frame was not sent. That it was sent does not say that it arrived. */
  send(frame: ClientFrame): boolean {
    if (!this.ready || !this.socket) return false
    this.socket.send(JSON.stringify(frame))
    return true
  }

  /** Connects now instead of when the wait ends. */
  retryNow(): void {
    if (this.ended || this.socket) return
    this.open()
  }

  /** Tells what the browser knows of the network. */
  setOnline(online: boolean): void {
    if (this.ended || online === this.online) return
    this.online = online
    if (online) {
      this.attempt = 0
      this.open()
    } else {
      this.drop()
      this.options.onStatus({ state: 'offline' })
    }
  }

  private open(): void {
    this.drop()
    if (!this.online) return
    this.fatal = null
    this.returnAt = 0
    this.options.onStatus({ state: 'connecting' })
    const socket = this.options.openSocket(this.options.url)
    this.socket = socket
    // Covers a socket that never opens, as well as a server that never answers.
    this.watch()
    socket.onopen = () => {
      socket.send(
        JSON.stringify({ op: Op.Auth, authToken: this.options.token, device: 'web', ...this.options.hello() } satisfies ClientFrame),
      )
      // The protocol has no answer to authentication; the pong is one, since frames are answered in order.
      this.sendPing()
    }
    socket.onmessage = (event) => this.receive(event.data)
    socket.onclose = (event) => this.closed(event.code, event.reason)
  }

  private receive(data: unknown): void {
    const frame = parseFrame(data)
    if (!frame) return
    clearTimeout(this.watchdog)
    this.watchdog = undefined
    if (frame.op === Op.Error && endingCodes.has(frame.code) && !frame.clientId) this.fatal = frame
    if (!this.ready && frame.op !== Op.Error && frame.op !== Op.GoingAway) {
      this.ready = true
      this.readyAt = Date.now()
      this.options.onStatus({ state: 'connected' })
      this.options.onReady()
    }
    if (frame.op === Op.GoingAway) this.goAway(frame.reconnectAfterMs)
    else if (frame.op === Op.Error && frame.code === 'unavailable' && !this.ready) this.unavailable(frame.retryAfterMs ?? 0)
    else if (frame.op === Op.Ping) this.send({ op: Op.Pong })
    else this.options.onFrame(frame)
  }

  private goAway(afterMs: number): void {
    this.returnAt = Date.now() + Math.max(0, afterMs)
    clearTimeout(this.leave)
    // A server that goes away closes by itself; this is for one that does not.
    this.leave = setTimeout(() => this.lost(), Math.max(0, afterMs))
  }

  /** The server cannot authenticate anybody now. */
  private unavailable(retryAfterMs: number): void {
    if (retryAfterMs > 0) this.returnAt = Date.now() + retryAfterMs
    this.lost()
  }

  private sendPing(): void {
    this.socket?.send(JSON.stringify({ op: Op.Ping, have: this.options.have() } satisfies ClientFrame))
    this.watch()
    clearTimeout(this.ping)
    this.ping = setTimeout(() => this.sendPing(), pingMs)
  }

  private watch(): void {
    clearTimeout(this.watchdog)
    this.watchdog = setTimeout(() => this.lost(), answerMs)
  }

  private closed(code: number, reason: string): void {
    const ending = this.fatal?.code ?? endings[code]
    if (ending === 'unauthenticated') {
      this.lost()
      this.options.onDoubt()
      return
    }
    if (ending) {
      const message = this.fatal?.message ?? reason
      this.ended = true
      this.drop()
      this.options.onStatus({ state: 'stopped' })
      this.options.onEnded(ending, message)
      return
    }
    this.lost()
  }

  private lost(): void {
    if (this.ready && Date.now() - this.readyAt >= stableMs) this.attempt = 0
    const asked = this.returnAt
    this.drop()
    if (this.ended) return
    if (!this.online) {
      this.options.onStatus({ state: 'offline' })
      return
    }
    const wait = asked > 0 ? Math.max(0, asked - Date.now()) : backoffMs(this.attempt, this.options.random)
    this.attempt++
    this.options.onStatus({ state: 'waiting', retryAt: Date.now() + wait })
    this.retry = setTimeout(() => this.open(), wait)
  }

  /** Lets go of the socket and of every timer. */
  private drop(code?: number): void {
    for (const timer of [this.retry, this.ping, this.watchdog, this.leave]) clearTimeout(timer)
    this.ready = false
    const socket = this.socket
    this.socket = null
    if (!socket) return
    socket.onopen = socket.onmessage = socket.onclose = null
    // On a dead network the close event may take minutes: nobody waits for it.
    socket.close(code)
  }
}

type Timer = ReturnType<typeof setTimeout> | undefined
