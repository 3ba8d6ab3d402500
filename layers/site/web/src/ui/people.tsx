import type { ChatClient } from '../core/client'
import type { ChatState, ConversationView } from '../core/state'
import { Avatar } from './avatar'
import { Close } from './icons'
import { isOnline } from './presence'

export function PeopleColumn({ client, state, view, onClose }: { client: ChatClient; state: ChatState; view: ConversationView; onClose: () => void }) {
  const { target } = view
  const close = <button type="button" className="icon-button people-close" aria-label="Close" onClick={onClose}><Close /></button>
  if (target.kind === 'direct') {
    const online = isOnline(state, target.user)
    return (
      <aside className="people" aria-label="About this conversation">
        <header><h2>About</h2>{close}</header>
        <div className="profile">
          <Avatar user={{ id: target.user, name: view.title }} online={online} />
          <strong>{view.title}</strong>
          <span className="muted">{target.user === state.me.id ? 'Notes to yourself' : online ? 'Online now' : 'Not seen in your rooms'}</span>
          <span className="muted">User {target.user}</span>
        </div>
      </aside>
    )
  }
  const online = state.online.get(target.room)
  const users = [...(online?.users ?? [])].sort((a, b) => Number(b.id === state.me.id) - Number(a.id === state.me.id) || a.name.localeCompare(b.name))
  const more = (online?.count ?? 0) - users.length
  return (
    <aside className="people" aria-label="Who is online">
      <header><h2>Online <span className="muted">{online?.count ?? 0}</span></h2>{close}</header>
      <ul className="people-list">
        {users.map((u) => (
          <li key={u.id}>
            <button type="button" data-testid={`online-user-${u.id}`} onClick={() => client.openDirect(u)} title={`Write to ${u.name}`}>
              <Avatar user={u} online small />
              <span className="ellipsis">{u.name}</span>
              {u.id === state.me.id && <span className="muted">you</span>}
            </button>
          </li>
        ))}
      </ul>
      {more > 0 && <p className="muted people-more">and {more} more</p>}
    </aside>
  )
}
