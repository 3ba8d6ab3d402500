import { useCallback, useEffect, useState } from 'react'
import type { Config } from '../config'
import { ChatClient } from '../core/client'
import type { Socket } from '../core/connection'
import { lobby } from '../core/protocol'
import { Rest, type Session } from '../core/rest'
import { forgetSession, loadPlace, loadSession, saveSession } from '../session'
import { Chat } from './chat'
import { Login } from './login'
import { TracesUrl } from './traces'

const endings: Record<string, string> = {
  unauthenticated: 'Your session has expired. Please log in again.',
  session_ended: 'This session was ended. Please log in again.',
  replaced: 'You logged in somewhere else, so this session was ended.',
}

export function App({ config }: { config: Config }) {
  const [session, setSession] = useState(loadSession)
  const [ending, setEnding] = useState<{ code: string; text: string } | null>(null)

  const login = useCallback((s: Session) => {
    saveSession(s)
    setEnding(null)
    setSession(s)
  }, [])
  const end = useCallback((s: Session, code: string) => {
    forgetSession(s)
    setEnding(code ? { code, text: endings[code] ?? 'Please log in again.' } : null)
    setSession(null)
  }, [])

  if (!session) return <Login rest={new Rest(config.apiUrl)} ending={ending} onLogin={login} />
  return <SignedIn key={session.token} config={config} session={session} onEnded={end} />
}

function SignedIn({ config, session, onEnded }: { config: Config; session: Session; onEnded: (s: Session, code: string) => void }) {
  const [started, setStarted] = useState<{ client: ChatClient; rest: Rest } | null>(null)

  useEffect(() => {
    const rest = new Rest(config.apiUrl, session.token)
    const client = new ChatClient({
      session,
      rest,
      websocketUrl: config.websocketUrl,
      openSocket: (url) => new WebSocket(url) as Socket,
      onEnded: (code) => onEnded(session, code),
    })
    setStarted({ client, rest })
    const online = () => client.setOnline(true)
    const offline = () => client.setOnline(false)
    window.addEventListener('online', online)
    window.addEventListener('offline', offline)
    void client.start().then(() => openFirst(client))
    return () => {
      window.removeEventListener('online', online)
      window.removeEventListener('offline', offline)
      client.stop()
    }
  }, [config, session, onEnded])

  return started && <TracesUrl value={config.tracesUrl}><Chat client={started.client} rest={started.rest} /></TracesUrl>
}

/** Shows what was shown before a reload; else, where there is room beside the list, the lobby. */
function openFirst(client: ChatClient): void {
  const { rooms, conversations, current } = client.state
  if (current !== null) return
  const place = loadPlace()
  const room = place?.startsWith('room:') ? rooms.get(Number(place.slice(5))) : undefined
  if (room) client.openRoom(room)
  else if (place && conversations.has(place)) client.openConversation(place)
  else if (window.matchMedia('(min-width: 721px)').matches) {
    const first = rooms.get(lobby)
    if (first) client.openRoom(first)
  }
}
