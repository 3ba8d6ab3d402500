// The frames of the client protocol: one JSON object per websocket text message.

export const Op = {
  Direct: 2,
  Room: 3,
  Count: 4,
  RoomInfo: 5,
  Auth: 6,
  Ping: 10,
  Pong: 11,
  Replay: 12,
  Read: 13,
  Typing: 14,
  Enter: 15,
  Leave: 16,
  Ack: 20,
  Error: 21,
  ReplayDone: 22,
  GoingAway: 23,
} as const

/** Limits that the server sets. */
export const maxTextBytes = 16 << 10
export const maxResume = 200

/** The room that is always there, for everybody. */
export const lobby = 1

/** The last seq held of each conversation. */
export type Seqs = Record<string, number>

export interface Message {
  op: typeof Op.Direct | typeof Op.Room
  id: string
  conversation: string
  seq: number
  clientId: string
  msg: string
  fromUserId: number
  fromUserName: string
  toUserId: number
  toUserName: string
  roomId: number
  createdAt: string
  traceId: string
  /** Built here from an ack: its time is this machine's. The server's own frame replaces it. */
  provisional?: boolean
}

export interface User {
  id: number
  name: string
}

export interface AckFrame {
  op: typeof Op.Ack
  clientId: string
  id: string
  conversation: string
  seq: number
  traceId: string
}

export type ServerFrame =
  | Message
  | { op: typeof Op.Count; count: number; roomId: number }
  | { op: typeof Op.RoomInfo; count: number; roomId: number; roomUserInfo: Record<string, string> }
  | { op: typeof Op.Ping }
  | { op: typeof Op.Pong; heads?: Seqs }
  | { op: typeof Op.Read; conversation: string; seq: number }
  | { op: typeof Op.Typing; conversation: string; fromUserId: number; fromUserName: string }
  | AckFrame
  | { op: typeof Op.Error; code: string; message: string; clientId?: string; retryAfterMs?: number }
  | { op: typeof Op.ReplayDone; conversation: string; from: number; to: number; more: boolean }
  | { op: typeof Op.GoingAway; reconnectAfterMs: number }

export type ClientFrame =
  | { op: typeof Op.Auth; authToken: string; device: string; roomId?: number; resume?: Seqs }
  | { op: typeof Op.Direct; toUserId: number; msg: string; clientId: string }
  | { op: typeof Op.Room; roomId: number; msg: string; clientId: string }
  | { op: typeof Op.Ping; have?: Seqs }
  | { op: typeof Op.Pong }
  | { op: typeof Op.Replay; resume: Seqs }
  | { op: typeof Op.Read; conversation: string; seq: number }
  | { op: typeof Op.Typing; conversation: string }
  | { op: typeof Op.Enter | typeof Op.Leave; roomId: number }

const known = new Set<number>(Object.values(Op))

/** Reads one frame of the server; null for what this client does not know, which it must ignore. */
export function parseFrame(data: unknown): ServerFrame | null {
  if (typeof data !== 'string') return null
  try {
    const frame: unknown = JSON.parse(data)
    if (typeof frame !== 'object' || frame === null || !('op' in frame) || !known.has(frame.op as number)) return null
    return frame as ServerFrame
  } catch {
    return null
  }
}

export function roomConversation(room: number): string {
  return `room:${room}`
}

/** The same for both, whichever is named first. */
export function directConversation(a: number, b: number): string {
  return a < b ? `dm:${a}:${b}` : `dm:${b}:${a}`
}

/** What a conversation's name says to one user. */
export type Target = { kind: 'room'; room: number } | { kind: 'direct'; user: number }

/** Reads a conversation's name; null if it is none, or not one of this user's. */
export function parseConversation(conversation: string, me: number): Target | null {
  const room = /^room:([1-9]\d*)$/.exec(conversation)
  if (room) return { kind: 'room', room: Number(room[1]) }
  const direct = /^dm:([1-9]\d*):([1-9]\d*)$/.exec(conversation)
  if (!direct) return null
  const low = Number(direct[1])
  const high = Number(direct[2])
  if (low === me) return { kind: 'direct', user: high }
  if (high === me) return { kind: 'direct', user: low }
  return null
}
