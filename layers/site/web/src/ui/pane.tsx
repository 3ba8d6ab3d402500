import { useState } from 'react'
import type { ChatClient } from '../core/client'
import { lobby } from '../core/protocol'
import type { ChatState, ConversationView } from '../core/state'
import { Avatar } from './avatar'
import { Composer } from './composer'
import { Back, Hash, Lock, People } from './icons'
import { Messages } from './messages'
import { isOnline } from './presence'
import { StatusBanner } from './status'

interface Props {
  client: ChatClient
  state: ChatState
  view: ConversationView
  peopleOpen: boolean
  onPeople: () => void
  onBack: () => void
}

export function Pane({ client, state, view, peopleOpen, onPeople, onBack }: Props) {
  const { target } = view
  const room = target.kind === 'room' ? state.rooms.get(target.room) : undefined
  const [busy, setBusy] = useState(false)

  async function change(what: Promise<void>) {
    setBusy(true)
    await what
    setBusy(false)
  }

  return (
    <main className="pane" aria-label={view.title}>
      <header className="pane-head">
        <button type="button" className="icon-button back" data-testid="back" aria-label="Back to the list" onClick={onBack}><Back /></button>
        {target.kind === 'direct' ? (
          <Avatar user={{ id: target.user, name: view.title }} online={isOnline(state, target.user)} />
        ) : (
          <span className="room-icon">{room?.private ? <Lock /> : <Hash />}</span>
        )}
        <div className="pane-title">
          <h1 className="ellipsis" data-testid="conversation-title">{view.title}</h1>
          {target.kind === 'room' ? (
            <span className="muted"><span data-testid="online-count">{state.online.get(target.room)?.count ?? 0}</span> online</span>
          ) : (
            <span className="muted">{target.user === state.me.id ? 'Notes to yourself' : isOnline(state, target.user) ? 'Online' : 'Direct message'}</span>
          )}
        </div>
        {room && !room.member && (
          <button type="button" className="primary small" data-testid="join-room" disabled={busy} onClick={() => void change(client.join(room))}>Join</button>
        )}
        {room?.member && room.id !== lobby && (
          <button
            type="button" className="quiet small" data-testid="leave-room" disabled={busy}
            onClick={() => (!room.private || window.confirm(`Leave ${room.name}? You cannot come back on your own.`)) && void change(client.leave(room))}
          >
            Leave
          </button>
        )}
        <button type="button" className="icon-button people-toggle" data-testid="people-toggle" aria-label="Who is online" aria-expanded={peopleOpen} onClick={onPeople}><People /></button>
      </header>
      <StatusBanner status={state.status} onRetry={() => client.reconnectNow()} />
      <Messages client={client} me={state.me} view={view} />
      <p className="typing muted" aria-live="polite" data-testid="typing">{typing(view.typing)}</p>
      <Composer client={client} view={view} />
    </main>
  )
}

function typing(names: readonly string[]): string {
  if (names.length === 0) return ''
  if (names.length === 1) return `${names[0]} is typing…`
  if (names.length === 2) return `${names[0]} and ${names[1]} are typing…`
  return 'Several people are typing…'
}
