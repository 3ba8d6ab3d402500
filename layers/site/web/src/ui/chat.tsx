import { useEffect, useState, useSyncExternalStore } from 'react'
import type { ChatClient } from '../core/client'
import type { Rest } from '../core/rest'
import { savePlace } from '../session'
import { Close, Logo } from './icons'
import { NewRoom } from './newroom'
import { Pane } from './pane'
import { PeopleColumn } from './people'
import { Sidebar } from './sidebar'

export function Chat({ client, rest }: { client: ChatClient; rest: Rest }) {
  const state = useSyncExternalStore(client.subscribe, () => client.state)
  const [making, setMaking] = useState(false)
  const [peopleOpen, setPeopleOpen] = useState(false)
  const view = state.current === null ? undefined : state.conversations.get(state.current)

  const unread = [...state.conversations.values()].reduce((n, c) => n + c.unread, 0)
  useEffect(() => {
    document.title = unread > 0 ? `(${unread}) gochat` : 'gochat'
  }, [unread])
  useEffect(() => {
    if (state.current) savePlace(state.current)
    setPeopleOpen(false)
  }, [state.current])

  return (
    <div className={`chat${view ? ' has-pane' : ''}${peopleOpen ? ' people-open' : ''}`} onKeyDown={(e) => e.key === 'Escape' && setPeopleOpen(false)}>
      <Sidebar client={client} rest={rest} state={state} onNewRoom={() => setMaking(true)} />
      {view ? (
        <>
          <Pane
            key={view.id} client={client} state={state} view={view} peopleOpen={peopleOpen}
            onPeople={() => setPeopleOpen(!peopleOpen)} onBack={() => { savePlace(null); client.openConversation(null) }}
          />
          <div className="scrim" onClick={() => setPeopleOpen(false)} />
          <PeopleColumn client={client} state={state} view={view} onClose={() => setPeopleOpen(false)} />
        </>
      ) : (
        <main className="nothing">
          <Logo />
          <h2>Pick a conversation</h2>
          <p className="muted">Choose a room on the left, or search for someone to write to.</p>
        </main>
      )}
      {making && <NewRoom client={client} onClose={() => setMaking(false)} />}
      {state.notice && (
        <div className="toast" role="alert" data-testid="notice">
          <span>{state.notice.text} <code>{state.notice.code}</code></span>
          <button type="button" className="icon-button" aria-label="Dismiss" onClick={() => client.dismissNotice()}><Close /></button>
        </div>
      )}
    </div>
  )
}
