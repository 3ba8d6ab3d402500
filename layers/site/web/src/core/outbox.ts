import { Op, type AckFrame, type ClientFrame, type Message, type Target, type User } from './protocol'

/** A message of this user that is not in its conversation yet. */
export interface Outgoing {
  readonly clientId: string
  readonly conversation: string
  readonly target: Target
  readonly text: string
  /** When it was written, by this machine's clock, in milliseconds. */
  readonly at: number
  /** sent: stored by the server, and shown here once all before it is. */
  readonly state: 'sending' | 'sent' | 'failed'
  /** Why it failed: the protocol's code and a sentence. */
  readonly code: string
  readonly reason: string
}

/** Without an ack for so long a message counts as failed, and is still sent again after the next reconnect. */
export const ackMs = 15_000

/** Refusals that another try will not change. */
const final = new Set(['bad_request', 'forbidden', 'not_found', 'too_large', 'conflict'])

/**
 * Messages on their way, in the order in which they were written. Each keeps its clientId however often it is sent,
 * so that the server stores it once.
 */
export class Outbox {
  private items: Outgoing[] = []
  private readonly timers = new Map<string, ReturnType<typeof setTimeout>>()
  private readonly send: (frame: ClientFrame) => boolean
  private readonly changed: (conversation: string) => void

  constructor(send: (frame: ClientFrame) => boolean, changed: (conversation: string) => void) {
    this.send = send
    this.changed = changed
  }

  of(conversation: string): readonly Outgoing[] {
    return this.items.filter((o) => o.conversation === conversation)
  }

  add(conversation: string, target: Target, text: string): void {
    const item: Outgoing = { clientId: newClientId(), conversation, target, text, at: Date.now(), state: 'sending', code: '', reason: '' }
    this.items.push(item)
    this.transmit(item)
    this.changed(conversation)
  }

  /** Sends everything again that has no ack and was not refused for good. For a connection that is new. */
  flush(): void {
    for (const item of this.items) {
      if (item.state === 'sending' || (item.state === 'failed' && !final.has(item.code))) this.retry(item.clientId)
    }
  }

  retry(clientId: string): void {
    const item = this.update(clientId, { state: 'sending', code: '', reason: '' })
    if (item) this.transmit(item)
  }

  /** The server has stored it. Answers the message, or undefined if it is not waited for. */
  confirm(clientId: string): Outgoing | undefined {
    this.clear(clientId)
    return this.update(clientId, { state: 'sent', code: '', reason: '' })
  }

  fail(clientId: string, code: string, reason: string): void {
    this.clear(clientId)
    this.update(clientId, { state: 'failed', code, reason })
  }

  /** Forgets the message: it is shown in its conversation, or its author gave it up. */
  remove(clientId: string): void {
    const item = this.items.find((o) => o.clientId === clientId)
    if (!item) return
    this.clear(clientId)
    this.items = this.items.filter((o) => o !== item)
    this.changed(item.conversation)
  }

  stop(): void {
    for (const id of [...this.timers.keys()]) this.clear(id)
  }

  private transmit(item: Outgoing): void {
    const { clientId, target, text: msg } = item
    // What cannot be sent now is sent by flush.
    if (target.kind === 'room') this.send({ op: Op.Room, roomId: target.room, msg, clientId })
    else this.send({ op: Op.Direct, toUserId: target.user, msg, clientId })
    this.clear(clientId)
    this.timers.set(
      clientId,
      setTimeout(() => this.fail(clientId, 'unconfirmed', 'No confirmation yet. It is sent again after reconnecting.'), ackMs),
    )
  }

  private update(clientId: string, change: Partial<Outgoing>): Outgoing | undefined {
    const i = this.items.findIndex((o) => o.clientId === clientId)
    if (i < 0) return undefined
    const item = { ...this.items[i]!, ...change }
    this.items = this.items.with(i, item)
    this.changed(item.conversation)
    return item
  }

  private clear(clientId: string): void {
    clearTimeout(this.timers.get(clientId))
    this.timers.delete(clientId)
  }
}

/** The message as it is stored, as far as its ack tells: the connection that sent it may get no frame of it. */
export function acknowledged(sent: Outgoing, ack: AckFrame, me: User): Message {
  const { target } = sent
  return {
    op: target.kind === 'room' ? Op.Room : Op.Direct,
    id: ack.id,
    conversation: ack.conversation,
    seq: ack.seq,
    clientId: ack.clientId,
    msg: sent.text,
    fromUserId: me.id,
    fromUserName: me.name,
    toUserId: target.kind === 'direct' ? target.user : 0,
    toUserName: '',
    roomId: target.kind === 'room' ? target.room : 0,
    createdAt: new Date(sent.at).toISOString(),
    traceId: ack.traceId,
    provisional: true,
  }
}

/** 128 random bits in hex. Not randomUUID, which a page loaded by plain http lacks. */
function newClientId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, '0')).join('')
}
