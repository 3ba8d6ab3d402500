import { useEffect, useState } from 'react'
import type { Status } from '../core/connection'

function text(status: Status, now: number): string {
  switch (status.state) {
    case 'connected':
      return 'Connected'
    case 'connecting':
      return 'Connecting…'
    case 'offline':
      return 'Offline'
    case 'stopped':
      return 'Disconnected'
    case 'waiting':
      return `Reconnecting in ${Math.max(0, Math.ceil((status.retryAt - now) / 1000))} s`
  }
}

/** How the connection is, counting down to the next try. */
export function useStatusText(status: Status): string {
  const [now, setNow] = useState(Date.now)
  const waiting = status.state === 'waiting'
  useEffect(() => {
    if (!waiting) return
    setNow(Date.now())
    const timer = setInterval(() => setNow(Date.now()), 500)
    return () => clearInterval(timer)
  }, [waiting])
  return text(status, now)
}

export function StatusLine({ status }: { status: Status }) {
  return (
    <span className={`status ${status.state}`} data-testid="status" data-state={status.state}>
      <span className="status-dot" aria-hidden="true" />
      {useStatusText(status)}
    </span>
  )
}

/** Above the messages, while something is wrong with the connection. */
export function StatusBanner({ status, onRetry }: { status: Status; onRetry: () => void }) {
  const line = useStatusText(status)
  if (status.state !== 'waiting' && status.state !== 'offline') return null
  return (
    <div className="banner">
      <span>{line}. Messages you write now are sent once you are back.</span>
      {status.state === 'waiting' && <button type="button" className="link" onClick={onRetry}>Try now</button>}
    </div>
  )
}
