import { useId, useState, type FormEvent } from 'react'
import { ApiError, type Rest, type Session } from '../core/rest'
import { Logo } from './icons'

interface Problem {
  code: string
  text: string
  traceId?: string
}

/** What the server's code means to someone who is logging in. */
function explain(err: ApiError, registering: boolean): string {
  switch (err.code) {
    case 'unauthenticated':
      return 'That name and password do not match. Check both and try again.'
    case 'conflict':
      return 'That name is already taken. Choose another, or log in if it is yours.'
    case 'rate_limited':
      return `Too many attempts. Try again in ${Math.max(1, Math.ceil(err.retryAfterMs / 1000))} s.`
    case 'unavailable':
    case 'internal':
      return 'The server has a problem right now. Try again in a moment.'
    case 'bad_request':
      return registering ? `That cannot be registered: ${err.message}` : err.message
    default:
      return err.message
  }
}

export function Login({ rest, ending, onLogin }: { rest: Rest; ending: Problem | null; onLogin: (s: Session) => void }) {
  const [registering, setRegistering] = useState(false)
  const [name, setName] = useState('')
  const [password, setPassword] = useState('')
  const [busy, setBusy] = useState(false)
  const [problem, setProblem] = useState<Problem | null>(null)
  const id = useId()

  async function submit(event: FormEvent) {
    event.preventDefault()
    if (busy) return
    setBusy(true)
    setProblem(null)
    try {
      onLogin(await (registering ? rest.register(name.trim(), password) : rest.login(name.trim(), password)))
    } catch (err) {
      if (!(err instanceof ApiError)) throw err
      setProblem({ code: err.code, text: explain(err, registering), traceId: err.traceId })
      setBusy(false)
    }
  }

  return (
    <main className="login">
      <form className="login-card" onSubmit={(e) => void submit(e)} aria-labelledby={`${id}-title`}>
        <div className="login-brand"><Logo />gochat</div>
        <h1 id={`${id}-title`}>{registering ? 'Create your account' : 'Welcome back'}</h1>
        <p className="muted">{registering ? 'Pick a name that others will know you by.' : 'Log in to continue your conversations.'}</p>
        {ending && !problem && <p className="alert info" role="status" data-testid="login-notice">{ending.text} <code>{ending.code}</code></p>}
        <label htmlFor={`${id}-name`}>Name</label>
        <input
          id={`${id}-name`} data-testid="login-name" value={name} onChange={(e) => setName(e.target.value)}
          autoComplete="username" autoCapitalize="none" spellCheck={false} maxLength={64} required autoFocus
        />
        <label htmlFor={`${id}-password`}>Password</label>
        <input
          id={`${id}-password`} data-testid="login-password" type="password" value={password} onChange={(e) => setPassword(e.target.value)}
          autoComplete={registering ? 'new-password' : 'current-password'} maxLength={256} required
        />
        {problem && (
          <p className="alert" role="alert" data-testid="login-error">
            {problem.text} <code>{problem.code}</code>
            {problem.traceId && <small>trace {problem.traceId}</small>}
          </p>
        )}
        <button className="primary" type="submit" data-testid="login-submit" disabled={busy}>
          {busy ? 'One moment…' : registering ? 'Create account' : 'Log in'}
        </button>
        <p className="login-switch">
          {registering ? 'Already have an account?' : 'New here?'}{' '}
          <button type="button" className="link" data-testid="register-toggle" onClick={() => { setRegistering(!registering); setProblem(null) }}>
            {registering ? 'Log in' : 'Create an account'}
          </button>
        </p>
      </form>
    </main>
  )
}
