// What the tests of this folder share: a scripted other end of the socket, and a store in memory.

import type { Socket } from './connection'
import { Op, type Message } from './protocol'
import type { ApiError, InboxEntry, Page, Room } from './rest'

export class FakeSocket implements Socket {
  onopen: (() => void) | null = null
  onmessage: ((event: { data: unknown }) => void) | null = null
  onclose: ((event: { code: number; reason: string }) => void) | null = null
  readonly sent: Record<string, unknown>[] = []
  closed = false

  send(data: string): void {
    this.sent.push(JSON.parse(data) as Record<string, unknown>)
  }

  close(): void {
    this.closed = true
  }

  /** Opens and answers the ping that follows authentication. */
  accept(): void {
    this.onopen?.()
    this.receive({ op: Op.Pong })
  }

  receive(frame: object): void {
    this.onmessage?.({ data: JSON.stringify(frame) })
  }

  hangUp(code: number, reason = ''): void {
    this.onclose?.({ code, reason })
  }

  of(op: number): Record<string, unknown>[] {
    return this.sent.filter((f) => f['op'] === op)
  }
}

export const me = { id: 3, name: 'ada' }

export function roomMessage(seq: number, change: Partial<Message> = {}): Message {
  return {
    op: Op.Room, id: `${1000 + seq}`, conversation: 'room:1', seq, clientId: '', msg: `text ${seq}`, fromUserId: 7, fromUserName: 'bob',
    toUserId: 0, toUserName: '', roomId: 1, createdAt: `2026-01-02T03:04:${String(seq % 60).padStart(2, '0')}.000Z`,
    traceId: '0af7651916cd43dd8448eb211c80319c', ...change,
  }
}

export function directMessage(seq: number, change: Partial<Message> = {}): Message {
  return roomMessage(seq, { op: Op.Direct, conversation: 'dm:3:7', roomId: 0, toUserId: me.id, toUserName: me.name, ...change })
}

/** The REST half of a server: it holds messages and pages through them. */
export class FakeRest {
  messages: Message[] = []
  roomList: Room[] = [{ id: 1, name: 'lobby', private: false, member: true }]
  entries: InboxEntry[] = []
  readonly calls: string[] = []
  pageSize = 50

  inbox = async (): Promise<InboxEntry[]> => (this.calls.push('inbox'), this.entries)
  rooms = async (): Promise<Room[]> => (this.calls.push('rooms'), this.roomList)
  createRoom = async (name: string, isPrivate: boolean): Promise<Room> => ({ id: 9, name, private: isPrivate, member: true })
  joinRoom = async (): Promise<void> => {}
  leaveRoom = async (): Promise<void> => {}
  /** What checkSession rejects with, if anything. */
  refusal: ApiError | null = null
  checkSession = async (): Promise<void> => {
    this.calls.push('checkSession')
    if (this.refusal) throw this.refusal
  }
  logout = async (): Promise<void> => {}
  online = async (): Promise<{ count: number; users: [] }> => ({ count: 0, users: [] })

  after = async (target: object, seq: number): Promise<Page> => {
    this.calls.push(`after ${seq}`)
    const all = this.in(target).filter((m) => m.seq > seq)
    return { messages: all.slice(0, this.pageSize), more: all.length > this.pageSize }
  }

  before = async (target: object, seq: number): Promise<Page> => {
    this.calls.push(`before ${seq}`)
    const all = this.in(target).filter((m) => m.seq < seq)
    return { messages: all.slice(-this.pageSize), more: all.length > this.pageSize }
  }

  private in(target: object): Message[] {
    return this.messages.filter((m) => ('room' in target ? m.op === Op.Room : m.op === Op.Direct))
  }
}
