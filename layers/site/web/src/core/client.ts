import { Backfill } from './backfill'
import { Connection, type Status } from './connection'
import { Conversation } from './conversation'
import { Marks } from './marks'
import { Outbox, acknowledged } from './outbox'
import {
  Op, directConversation, maxResume, parseConversation, roomConversation,
  type AckFrame, type Message, type Seqs, type ServerFrame, type Target, type User,
} from './protocol'
import { ApiError, type Room } from './rest'
import type { ChatState, ClientOptions, ConversationView, Online } from './state'

const typingSentMs = 3_000

/**
 * One user's chat: the connection, the conversations and what is shown of them. It knows nothing of the page that
 * shows it.
 *
 * Every message of a conversation reaches the page in seq order, once, without a hole, whether it comes live, by
 * replay, by a page of history or as an ack. state is a value: it is replaced, in a microtask, after changes.
 */
export class ChatClient {
  private readonly options: ClientOptions
  private readonly me: User
  private readonly connection: Connection
  private readonly outbox: Outbox
  private readonly conversations = new Map<string, Conversation>()
  private readonly rooms = new Map<number, Room>()
  private readonly names = new Map<number, string>()
  private readonly online = new Map<number, Online>()
  /** Rooms that this connection is in. */
  private readonly entered = new Set<number>()
  private readonly marks: Marks
  private readonly backfill: Backfill
  private typingSentAt = 0
  private pongs = 0
  private current: string | null = null
  private status: Status = { state: 'connecting' }
  /** Rooms and inbox may have changed since they were loaded. */
  private stale = true
  private refreshing = false
  private notice: ChatState['notice'] = null
  private over = false

  private readonly listeners = new Set<() => void>()
  private readonly dirty = new Set<string>()
  private scheduled = false
  private snapshot: ChatState

  constructor(options: ClientOptions) {
    this.options = options
    this.me = { id: options.session.userId, name: options.session.name }
    this.names.set(this.me.id, this.me.name)
    this.connection = new Connection({
      url: options.websocketUrl,
      token: options.session.token,
      openSocket: options.openSocket,
      hello: () => this.hello(),
      have: () => this.have(),
      onFrame: (frame) => this.receive(frame),
      onStatus: (status) => {
        this.status = status
        if (status.state === 'waiting' || status.state === 'offline') this.disconnected()
        this.changed()
      },
      onReady: () => this.ready(),
      onDoubt: () => void this.attempt(() => options.rest.checkSession()),
      onEnded: (code, message) => this.end(code, message),
      ...(options.random ? { random: options.random } : {}),
    })
    this.outbox = new Outbox((frame) => this.connection.send(frame), (conversation) => this.changed(conversation))
    this.marks = new Marks((conversation, seq) => this.connection.send({ op: Op.Read, conversation, seq }))
    this.backfill = new Backfill(options.rest, (c, added) => this.arrived(c, added), (err) => this.ended(err))
    this.snapshot = { me: this.me, status: this.status, rooms: new Map(), conversations: new Map(), online: new Map(), current: null, notice: null }
  }

  get state(): ChatState {
    return this.snapshot
  }

  subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }

  /** Loads what the user has, then connects. Connects also if loading failed: it is tried again once connected. */
  async start(): Promise<void> {
    await this.refresh()
    if (!this.over) this.connection.start()
  }

  /** Lets go of the connection and of every timer. Nothing is reported afterwards. */
  stop(): void {
    this.over = true
    this.connection.stop()
    this.outbox.stop()
    this.marks.stop()
    this.backfill.stop()
    for (const c of this.conversations.values()) c.stop()
  }

  async logout(): Promise<void> {
    this.over = true
    try {
      await this.options.rest.logout()
    } catch {
      // The token is forgotten here in any case, and the session expires by itself.
    }
    this.stop()
    this.options.onEnded('', '')
  }

  setOnline = (online: boolean): void => this.connection.setOnline(online)

  reconnectNow = (): void => this.connection.retryNow()

  dismissNotice(): void {
    this.notice = null
    this.changed()
  }

  /** Shows a room, which the connection enters. */
  openRoom(room: Room): void {
    this.rooms.set(room.id, room)
    this.open(roomConversation(room.id), { kind: 'room', room: room.id })
    this.enter(room.id)
    void this.loadOnline(room.id)
  }

  /** Shows the direct conversation with a user, who may be this one. */
  openDirect(user: User): void {
    this.name(user)
    this.open(directConversation(this.me.id, user.id), { kind: 'direct', user: user.id })
  }

  /** Shows a conversation that is known already, or none. */
  openConversation(id: string | null): void {
    const c = id === null ? undefined : this.conversations.get(id)
    if (c?.target.kind === 'room') this.enter(c.target.room)
    if (c) this.open(c.id, c.target)
    else this.leaveCurrent(null)
    this.changed()
  }

  async createRoom(name: string, isPrivate: boolean): Promise<void> {
    const room = await this.options.rest.createRoom(name, isPrivate)
    this.openRoom({ ...room, member: true })
  }

  async join(room: Room): Promise<void> {
    await this.attempt(async () => {
      await this.options.rest.joinRoom(room.id)
      this.rooms.set(room.id, { ...room, member: true })
      this.enter(room.id)
      this.changed(roomConversation(room.id))
    })
  }

  async leave(room: Room): Promise<void> {
    await this.attempt(async () => {
      await this.options.rest.leaveRoom(room.id)
      const id = roomConversation(room.id)
      if (room.private) this.rooms.delete(room.id)
      else this.rooms.set(room.id, { ...room, member: false })
      if (this.current === id) this.leaveCurrent(null)
      this.exit(room.id)
      this.conversations.get(id)?.stop()
      this.conversations.delete(id)
      this.changed(id)
    })
  }

  /** Loads the page of history before what is held. */
  async loadOlder(id: string): Promise<void> {
    const c = this.conversations.get(id)
    if (!c || c.loadingOlder || (c.loaded && c.log?.atStart)) return
    c.loadingOlder = true
    this.changed(id)
    const known = c.log !== null
    await this.attempt(async () => this.learn(await this.backfill.older(c)))
    if (!known && c.log) this.replay(c) // what was said between the page and the moment this connection entered
    c.loadingOlder = false
    this.changed(id)
  }

  send(id: string, text: string): void {
    const c = this.conversations.get(id)
    this.typingSentAt = 0
    if (c) this.outbox.add(id, c.target, text)
  }

  retry(clientId: string): void {
    this.outbox.retry(clientId)
  }

  discard(clientId: string): void {
    this.outbox.remove(clientId)
  }

  /** Tells the others that this user types, at most every few seconds. */
  typing(id: string): void {
    if (Date.now() - this.typingSentAt < typingSentMs) return
    if (this.connection.send({ op: Op.Typing, conversation: id })) this.typingSentAt = Date.now()
  }

  /** The user has seen everything that is held of the conversation. */
  seen(id: string): void {
    const c = this.conversations.get(id)
    if (!c?.log) return
    c.trim()
    if (!c.read(c.log.last, this.me.id)) return
    // The server keeps marks of members alone.
    if (this.follows(c)) this.marks.set(id, c.readSeq)
    this.changed(id)
  }

  private open(id: string, target: Target): void {
    const c = this.conversation(id, target)
    if (this.current !== id) this.leaveCurrent(id)
    this.changed(id)
    if (!c.loaded) void this.loadOlder(id)
  }

  private leaveCurrent(next: string | null): void {
    const before = this.shown()
    this.current = next
    this.typingSentAt = 0
    if (!before) return
    before.trim()
    if (before.target.kind === 'room' && !this.rooms.get(before.target.room)?.member) this.exit(before.target.room)
    this.changed(before.id)
  }

  /** Has the connection receive what is said in the room, and what was said since it was left. */
  private enter(room: number): void {
    if (this.entered.has(room) || !this.connection.send({ op: Op.Enter, roomId: room })) return
    this.entered.add(room)
    const c = this.conversations.get(roomConversation(room))
    if (c?.log && !c.replaying) this.replay(c)
  }

  private exit(room: number): void {
    if (this.entered.delete(room)) this.connection.send({ op: Op.Leave, roomId: room })
    this.online.delete(room)
  }

  private hello(): { roomId?: number; resume?: Seqs } {
    const hello: { roomId?: number; resume?: Seqs } = {}
    const target = this.shown()?.target
    if (target?.kind === 'room') {
      hello.roomId = target.room
      this.entered.add(target.room)
    }
    const resume = this.have()
    // An empty resume would ask for everything that is unread, which the inbox has counted already.
    if (Object.keys(resume).length > 0) hello.resume = resume
    for (const id of Object.keys(resume)) this.conversations.get(id)!.replaying = true
    return hello
  }

  private shown(): Conversation | undefined {
    return this.current === null ? undefined : this.conversations.get(this.current)
  }

  /** The last seq of the conversations that were active last, as many as one frame may name. */
  private have(): Seqs {
    const known = [...this.conversations.values()].filter((c) => c.log && (c.id === this.current || this.follows(c)))
    known.sort((a, b) => Number(b.id === this.current) - Number(a.id === this.current) || b.activeAt - a.activeAt)
    return Object.fromEntries(known.slice(0, maxResume).map((c) => [c.id, c.last]))
  }

  private follows(c: Conversation): boolean {
    return c.target.kind === 'direct' || this.rooms.get(c.target.room)?.member === true
  }

  private ready(): void {
    this.pongs = 0
    for (const room of this.rooms.values()) if (room.member) this.enter(room.id)
    const shown = this.shown()
    if (shown?.target.kind === 'room') this.enter(shown.target.room) // opened after the first frame was sent
    this.outbox.flush()
    this.marks.flush()
    if (this.stale) void this.refresh()
    if (shown && !shown.loaded) void this.loadOlder(shown.id)
  }

  private disconnected(): void {
    this.stale = true
    this.entered.clear()
    for (const c of this.conversations.values()) c.replaying = false
  }

  /** Loads rooms and inbox. */
  private async refresh(): Promise<void> {
    if (this.refreshing) return
    this.refreshing = true
    await this.attempt(async () => {
      const [rooms, inbox] = await Promise.all([this.options.rest.rooms(''), this.options.rest.inbox()])
      this.stale = false
      for (const entry of inbox) {
        const target = parseConversation(entry.conversation, this.me.id)
        if (!target) continue
        this.learn(entry.last ? [entry.last] : [])
        this.conversation(entry.conversation, target).merge(entry)
        this.changed(entry.conversation)
      }
      for (const room of rooms) {
        this.rooms.set(room.id, room)
        if (room.member) this.enter(room.id)
        this.changed(roomConversation(room.id))
      }
      this.changed()
    })
    this.refreshing = false
  }

  private async loadOnline(room: number): Promise<void> {
    const before = this.online.get(room)
    await this.attempt(async () => {
      const answer = await this.options.rest.online(room)
      if (this.online.get(room) === before) this.setOnlineUsers(room, answer) // else what was pushed meanwhile is newer
    })
  }

  private setOnlineUsers(room: number, online: Online): void {
    for (const u of online.users) this.name(u)
    this.online.set(room, online)
    this.changed()
  }

  private receive(frame: ServerFrame): void {
    switch (frame.op) {
      case Op.Direct:
      case Op.Room:
        this.receiveMessage(frame)
        break
      case Op.Ack:
        this.receiveAck(frame)
        break
      case Op.Error:
        if (frame.clientId) this.outbox.fail(frame.clientId, frame.code, frame.message)
        else this.notice = { code: frame.code, text: frame.message }
        this.changed()
        break
      case Op.ReplayDone: {
        const c = this.conversations.get(frame.conversation)
        if (!c) break
        c.replaying = false
        // A page of which something is missing here would be asked for again and again.
        if (frame.more && c.last >= frame.to) this.replay(c)
        else if (frame.more || c.log?.hole) void this.backfill.newer(c)
        break
      }
      case Op.Pong:
        // The first answers the ping that followed authentication: replays may still be on their way then.
        if (this.pongs++ > 0) for (const c of this.conversations.values()) c.replaying = false
        for (const [id, head] of Object.entries(frame.heads ?? {})) {
          const c = this.conversations.get(id)
          if (c && !c.replaying && head > c.last) void this.backfill.newer(c)
        }
        break
      case Op.Count:
      case Op.RoomInfo: {
        const named = 'roomUserInfo' in frame ? Object.entries(frame.roomUserInfo).map(([id, name]) => ({ id: Number(id), name })) : null
        this.setOnlineUsers(frame.roomId, { count: frame.count, users: named ?? this.online.get(frame.roomId)?.users ?? [] })
        break
      }
      case Op.Read:
        if (this.conversations.get(frame.conversation)?.read(frame.seq, this.me.id)) this.changed(frame.conversation)
        break
      case Op.Typing:
        if (frame.fromUserId === this.me.id) break
        this.conversations.get(frame.conversation)?.types({ id: frame.fromUserId, name: frame.fromUserName })
        this.changed(frame.conversation)
        break
    }
  }

  private receiveMessage(m: Message): void {
    const target = parseConversation(m.conversation, this.me.id)
    if (!target) return
    const c = this.conversation(m.conversation, target)
    const fresh = c.log === null
    const log = c.logFrom(m.seq - 1)
    this.arrived(c, log.add(m))
    this.changed(c.id) // also if it took the place of one made from an ack
    if (log.hole && !c.replaying) void this.backfill.newer(c)
    // Only the inbox knows how much of a conversation that turns up in the middle is unread.
    if (fresh && m.seq > 1) void this.refresh()
  }

  private receiveAck(ack: AckFrame): void {
    const sent = this.outbox.confirm(ack.clientId)
    if (!sent) return
    const c = this.conversation(ack.conversation, sent.target)
    const log = c.logFrom(ack.seq - 1)
    this.arrived(c, log.add(acknowledged(sent, ack, this.me)))
    if (ack.seq <= log.last) this.outbox.remove(ack.clientId)
    else if (!c.replaying) void this.backfill.newer(c)
  }

  /** Messages have joined the log. */
  private arrived(c: Conversation, added: readonly Message[]): void {
    if (added.length === 0) return
    this.learn(added)
    c.count(added, this.me.id)
    for (const m of added) {
      c.typesNoMore(m.fromUserId)
      if (m.clientId && m.fromUserId === this.me.id) this.outbox.remove(m.clientId)
    }
    if (c.id !== this.current) c.trim()
    this.changed(c.id)
  }

  private replay(c: Conversation): void {
    if (this.connection.send({ op: Op.Replay, resume: { [c.id]: c.last } })) c.replaying = true
  }

  private conversation(id: string, target: Target): Conversation {
    const c = this.conversations.get(id) ?? new Conversation(id, target, () => this.changed(id))
    this.conversations.set(id, c)
    return c
  }

  private learn(messages: readonly Message[]): void {
    for (const m of messages) {
      this.name({ id: m.fromUserId, name: m.fromUserName })
      if (m.toUserId && m.toUserName) this.name({ id: m.toUserId, name: m.toUserName })
    }
  }

  private name(user: User): void {
    if (this.names.get(user.id) === user.name) return
    this.names.set(user.id, user.name)
    const direct = directConversation(this.me.id, user.id)
    if (this.conversations.has(direct)) this.changed(direct)
  }

  /** Does what may fail at the server and tells the user if it did. */
  private async attempt(what: () => Promise<void>): Promise<void> {
    try {
      await what()
    } catch (err) {
      if (!(err instanceof ApiError)) throw err
      if (this.over || this.ended(err)) return
      // The status line tells of the network.
      if (err.code !== 'network') this.notice = { code: err.code, text: err.message }
      this.changed()
    }
  }

  private ended(err: unknown): boolean {
    if (!(err instanceof ApiError) || !['unauthenticated', 'session_ended', 'replaced'].includes(err.code)) return false
    this.end(err.code, err.message)
    return true
  }

  private end(code: string, message: string): void {
    if (this.over) return
    this.stop()
    this.options.onEnded(code, message)
  }

  private changed(conversation?: string): void {
    if (conversation) this.dirty.add(conversation)
    if (this.scheduled) return
    this.scheduled = true
    queueMicrotask(() => this.publish())
  }

  private publish(): void {
    this.scheduled = false
    const views = new Map(this.snapshot.conversations)
    for (const id of this.dirty) {
      const c = this.conversations.get(id)
      if (c) views.set(id, this.view(c))
      else views.delete(id)
    }
    this.dirty.clear()
    this.snapshot = {
      me: this.me, status: this.status, rooms: new Map(this.rooms), conversations: views,
      online: new Map(this.online), current: this.current, notice: this.notice,
    }
    for (const listener of this.listeners) listener()
  }

  private view(c: Conversation): ConversationView {
    const { target } = c
    return {
      id: c.id, target, unread: c.unread, readSeq: c.readSeq, loaded: c.loaded, loadingOlder: c.loadingOlder,
      title: target.kind === 'room' ? (this.rooms.get(target.room)?.name ?? `Room ${target.room}`) : (this.names.get(target.user) ?? `User ${target.user}`),
      messages: c.log?.messages ?? [], outgoing: this.outbox.of(c.id), atStart: c.log?.atStart ?? false,
      typing: c.typing(),
    }
  }
}
