import type { Socket, Status } from './connection'
import type { Outgoing } from './outbox'
import type { Message, Target, User } from './protocol'
import type { Rest, Room, Session } from './rest'

export interface Online {
  /** The truth, however many names there are. */
  count: number
  users: readonly User[]
}

/** A conversation as the page shows it. Replaced when it changes. */
export interface ConversationView {
  id: string
  target: Target
  title: string
  messages: readonly Message[]
  outgoing: readonly Outgoing[]
  unread: number
  readSeq: number
  atStart: boolean
  loaded: boolean
  loadingOlder: boolean
  typing: readonly string[]
}

export interface Notice {
  code: string
  text: string
}

/** What the page shows, as one value. */
export interface ChatState {
  me: User
  status: Status
  /** Rooms by id, as far as they are known. */
  rooms: ReadonlyMap<number, Room>
  conversations: ReadonlyMap<string, ConversationView>
  online: ReadonlyMap<number, Online>
  current: string | null
  /** The last refusal that belongs to no message. */
  notice: Notice | null
}

export interface ClientOptions {
  session: Session
  rest: Pick<Rest, 'inbox' | 'rooms' | 'createRoom' | 'joinRoom' | 'leaveRoom' | 'online' | 'after' | 'before' | 'checkSession' | 'logout'>
  websocketUrl: string
  openSocket: (url: string) => Socket
  /** The session is over. code is the protocol's word, "" if the user logged out. */
  onEnded: (code: string, message: string) => void
  random?: () => number
}
