import type { Message, User } from './protocol'

export interface Room {
  id: number
  name: string
  private: boolean
  member: boolean
}

export interface InboxEntry {
  conversation: string
  lastSeq: number
  readSeq: number
  unread: number
  last?: Message | null
}

export interface Page {
  messages: Message[]
  more: boolean
}

export interface Session {
  token: string
  userId: number
  name: string
}

/** What the server refused, or "network" if it could not be asked. traceId finds the request in the traces. */
export class ApiError extends Error {
  readonly code: string
  readonly traceId: string
  readonly retryAfterMs: number

  constructor(code: string, message: string, traceId = '', retryAfterMs = 0) {
    super(message)
    this.code = code
    this.traceId = traceId
    this.retryAfterMs = retryAfterMs
  }
}

const timeoutMs = 15_000
const pageSize = 50
const maxPage = 200
const maxRoomPages = 25 // 5,000 rooms: more than a list is good for; search finds the rest

/** The REST routes that the page uses. Every method rejects with an ApiError. */
export class Rest {
  private readonly base: string
  private readonly token: string

  constructor(base: string, token = '') {
    this.base = base.replace(/\/+$/, '')
    this.token = token
  }

  login(name: string, password: string): Promise<Session> {
    return this.call('POST', '/v1/login', { name, password, device: 'web' })
  }

  register(name: string, password: string): Promise<Session> {
    return this.call('POST', '/v1/register', { name, password, device: 'web' })
  }

  logout(): Promise<void> {
    return this.call('POST', '/v1/logout')
  }

  /** Rejects with "unauthenticated" if the session is over. */
  async checkSession(): Promise<void> {
    await this.call('GET', '/v1/me')
  }

  async inbox(): Promise<InboxEntry[]> {
    const answer = await this.call<{ conversations?: InboxEntry[] | null }>('GET', `/v1/inbox?limit=${maxPage}`)
    return answer.conversations ?? []
  }

  /** Rooms whose name contains the query; all that the user may see if it is empty. At most maxRoomPages pages. */
  async rooms(query: string): Promise<Room[]> {
    const rooms: Room[] = []
    for (let page = 0; page < maxRoomPages; page++) {
      const after = rooms.at(-1)?.id ?? 0
      const answer = await this.call<{ rooms?: Room[] | null; more?: boolean }>(
        'GET', `/v1/rooms?limit=${maxPage}&after=${after}&query=${encodeURIComponent(query)}`)
      rooms.push(...(answer.rooms ?? []))
      if (!answer.more || !answer.rooms?.length) break
    }
    return rooms
  }

  createRoom(name: string, isPrivate: boolean): Promise<Room> {
    return this.call('POST', '/v1/rooms', { name, private: isPrivate })
  }

  joinRoom(id: number): Promise<void> {
    return this.call('POST', `/v1/rooms/${id}/join`)
  }

  leaveRoom(id: number): Promise<void> {
    return this.call('POST', `/v1/rooms/${id}/leave`)
  }

  /** Users whose name begins with the text. */
  async users(name: string): Promise<User[]> {
    const answer = await this.call<{ users?: User[] | null }>('GET', `/v1/users?name=${encodeURIComponent(name)}`)
    return answer.users ?? []
  }

  async online(room: number): Promise<{ count: number; users: User[] }> {
    const answer = await this.call<{ count: number; users?: User[] | null }>('GET', `/v1/rooms/${room}/online`)
    return { count: answer.count, users: answer.users ?? [] }
  }

  /** The page that follows a seq, ascending. */
  after(target: HistoryTarget, seq: number): Promise<Page> {
    return this.history(target, `after=${seq}&limit=${maxPage}`)
  }

  /** The page that precedes a seq, ascending. */
  before(target: HistoryTarget, seq: number): Promise<Page> {
    return this.history(target, `before=${seq}&limit=${pageSize}`)
  }

  private async history(target: HistoryTarget, query: string): Promise<Page> {
    const path = target.kind === 'room' ? `rooms/${target.room}` : `users/${target.user}`
    const answer = await this.call<{ messages?: Message[] | null; more: boolean }>('GET', `/v1/${path}/messages?${query}`)
    return { messages: answer.messages ?? [], more: answer.more }
  }

  private async call<T>(method: string, path: string, body?: object): Promise<T> {
    const headers: Record<string, string> = {}
    if (this.token) headers['Authorization'] = `Bearer ${this.token}`
    if (body) headers['Content-Type'] = 'application/json'
    const request: RequestInit = { method, headers, signal: AbortSignal.timeout(timeoutMs) }
    if (body) request.body = JSON.stringify(body)
    let response: Response
    let text: string
    try {
      response = await fetch(this.base + path, request)
      text = await response.text()
    } catch {
      throw new ApiError('network', 'The server cannot be reached. Check the connection and try again.')
    }
    const answer = parse(text)
    if (!response.ok) throw problem(response, answer)
    return answer as T
  }
}

type HistoryTarget = { kind: 'room'; room: number } | { kind: 'direct'; user: number }

function parse(text: string): unknown {
  try {
    return text ? JSON.parse(text) : null
  } catch {
    return null
  }
}

/** Reads problem JSON (RFC 9457), or makes up for a proxy that answered something else. */
function problem(response: Response, answer: unknown): ApiError {
  const p = (answer ?? {}) as { code?: string; detail?: string; title?: string; traceId?: string; retryAfterMs?: number }
  const code = p.code ?? (response.status === 401 ? 'unauthenticated' : response.status >= 500 ? 'unavailable' : `http_${response.status}`)
  return new ApiError(code, p.detail ?? p.title ?? `The server answered ${response.status}.`, p.traceId, p.retryAfterMs)
}
