import { useEffect, useId, useState } from 'react'
import type { ChatClient } from '../core/client'
import { lobby, roomConversation, type User } from '../core/protocol'
import { ApiError, type Rest, type Room } from '../core/rest'
import type { ChatState, ConversationView } from '../core/state'
import { Avatar } from './avatar'
import { brief, count } from './format'
import { Close, Exit, Hash, Lock, Logo, Plus, Search } from './icons'
import { isOnline } from './presence'
import { StatusLine } from './status'

interface Found {
  query: string
  rooms: Room[]
  users: User[]
  failed: boolean
}

/** Rooms and people that match, asked for a moment after the last key. */
function useSearch(rest: Rest, query: string): Found | null {
  const [found, setFound] = useState<Found | null>(null)
  useEffect(() => {
    if (!query) {
      setFound(null)
      return
    }
    let current = true
    const timer = setTimeout(() => {
      Promise.all([rest.rooms(query), rest.users(query)]).then(
        ([rooms, users]) => current && setFound({ query, rooms, users, failed: false }),
        (err: unknown) => {
          if (!(err instanceof ApiError)) throw err
          if (current) setFound({ query, rooms: [], users: [], failed: true })
        },
      )
    }, 200)
    return () => {
      current = false
      clearTimeout(timer)
    }
  }, [rest, query])
  return found
}

export function Sidebar({ client, rest, state, onNewRoom }: { client: ChatClient; rest: Rest; state: ChatState; onNewRoom: () => void }) {
  const [query, setQuery] = useState('')
  const found = useSearch(rest, query.trim())
  const id = useId()

  const rooms = [...state.rooms.values()].sort((a, b) => Number(b.id === lobby) - Number(a.id === lobby) || a.name.localeCompare(b.name))
  const mine = (r: Room) => r.member || r.id === lobby
  const directs = [...state.conversations.values()].filter((c) => c.target.kind === 'direct').sort((a, b) => latest(b) - latest(a))

  return (
    <nav className="sidebar" aria-label="Conversations">
      <header className="sidebar-head">
        <Logo /><strong>gochat</strong>
        <button type="button" className="icon-button" data-testid="new-room" aria-label="New room" title="New room" onClick={onNewRoom}><Plus /></button>
      </header>
      <div className="search">
        <Search />
        <label className="hidden" htmlFor={id}>Search rooms and people</label>
        <input
          id={id} data-testid="search" value={query} onChange={(e) => setQuery(e.target.value)} placeholder="Search rooms and people"
          maxLength={64} autoComplete="off" onKeyDown={(e) => e.key === 'Escape' && setQuery('')}
        />
        {query && <button type="button" className="icon-button" aria-label="Clear search" onClick={() => setQuery('')}><Close /></button>}
      </div>
      <div className="sidebar-lists">
        {query.trim() ? (
          <Results client={client} state={state} found={found} onDone={() => setQuery('')} />
        ) : (
          <>
            <Section title="Rooms">{rooms.filter(mine).map((r) => <RoomItem key={r.id} client={client} state={state} room={r} />)}</Section>
            <Section title="Direct messages" empty="Search for a name, or click someone who is online.">
              {directs.map((c) => <DirectItem key={c.id} client={client} state={state} view={c} />)}
            </Section>
            {rooms.some((r) => !mine(r)) && (
              <Section title="Discover">{rooms.filter((r) => !mine(r)).map((r) => <RoomItem key={r.id} client={client} state={state} room={r} />)}</Section>
            )}
          </>
        )}
      </div>
      <footer className="sidebar-foot">
        <Avatar user={state.me} />
        <span className="who"><strong className="ellipsis" data-testid="me">{state.me.name}</strong><StatusLine status={state.status} /></span>
        <button type="button" className="icon-button" data-testid="logout" aria-label="Log out" title="Log out" onClick={() => void client.logout()}><Exit /></button>
      </footer>
    </nav>
  )
}

function Results({ client, state, found, onDone }: { client: ChatClient; state: ChatState; found: Found | null; onDone: () => void }) {
  if (!found) return <p className="muted side-note">Searching…</p>
  if (found.failed) return <p className="muted side-note" role="alert">The search was not answered. Try again.</p>
  return (
    <>
      <Section title="Rooms" empty="No room has this in its name.">
        {found.rooms.map((r) => <RoomItem key={r.id} client={client} state={state} room={r} onOpen={onDone} />)}
      </Section>
      <Section title="People" empty="Nobody's name begins like this.">
        {found.users.map((u) => (
          <li key={u.id}>
            <button type="button" className="item" data-testid={`user-item-${u.id}`} onClick={() => { client.openDirect(u); onDone() }}>
              <Avatar user={u} online={isOnline(state, u.id)} small />
              <span className="item-text ellipsis">{u.name}</span>
            </button>
          </li>
        ))}
      </Section>
    </>
  )
}

function Section({ title, empty, children }: { title: string; empty?: string; children: React.ReactNode[] }) {
  const id = useId()
  return (
    <section aria-labelledby={id}>
      <h2 id={id}>{title}</h2>
      {children.length > 0 ? <ul>{children}</ul> : empty && <p className="muted side-note">{empty}</p>}
    </section>
  )
}

function Badge({ unread, id }: { unread: number; id: string }) {
  if (unread === 0) return null
  return <span className="badge" data-testid={`unread-${id}`}>{count(unread)}<span className="hidden"> unread</span></span>
}

function RoomItem({ client, state, room, onOpen }: { client: ChatClient; state: ChatState; room: Room; onOpen?: () => void }) {
  const id = roomConversation(room.id)
  const unread = state.conversations.get(id)?.unread ?? 0
  return (
    <li>
      <button
        type="button" className={`item${unread > 0 ? ' unread' : ''}`} data-testid={`room-item-${room.id}`} aria-current={state.current === id || undefined}
        onClick={() => { client.openRoom(room); onOpen?.() }}
      >
        <span className="item-icon">{room.private ? <Lock /> : <Hash />}</span>
        <span className="item-text ellipsis">{room.name}</span>
        <Badge unread={unread} id={id} />
      </button>
    </li>
  )
}

function DirectItem({ client, state, view }: { client: ChatClient; state: ChatState; view: ConversationView }) {
  if (view.target.kind !== 'direct') return null
  const { user } = view.target
  const last = view.messages.at(-1)
  return (
    <li>
      <button
        type="button" className={`item tall${view.unread > 0 ? ' unread' : ''}`} data-testid={`direct-item-${user}`} aria-current={state.current === view.id || undefined}
        onClick={() => client.openConversation(view.id)}
      >
        <Avatar user={{ id: user, name: view.title }} online={isOnline(state, user)} />
        <span className="item-text">
          <span className="item-line"><span className="ellipsis">{view.title}</span>{last && <time className="muted">{brief(last.createdAt)}</time>}</span>
          <span className="item-line muted">
            <span className="ellipsis">{last ? `${last.fromUserId === state.me.id ? 'You: ' : ''}${last.msg}` : 'No messages yet'}</span>
            <Badge unread={view.unread} id={view.id} />
          </span>
        </span>
      </button>
    </li>
  )
}

function latest(view: ConversationView): number {
  return view.outgoing.at(-1)?.at ?? Date.parse(view.messages.at(-1)?.createdAt ?? '1970')
}
