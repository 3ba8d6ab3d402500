import type { Session } from './core/rest'

// localStorage, so that people stay logged in when they close the tab or the browser, in every tab at once, until
// they log out or the session ends. sessionStorage would keep the token no safer from a script in this page, which the
// policy of the site is there to prevent.
const key = 'gochat.session'
// By tab: each may show another conversation.
const placeKey = 'gochat.conversation'

export function loadSession(): Session | null {
  try {
    const s = JSON.parse(localStorage.getItem(key) ?? 'null') as Session | null
    return s && typeof s.token === 'string' && typeof s.userId === 'number' ? s : null
  } catch {
    return null
  }
}

export function saveSession(session: Session): void {
  localStorage.setItem(key, JSON.stringify({ token: session.token, userId: session.userId, name: session.name }))
}

/** Forgets the session, unless another tab has begun a newer one. */
export function forgetSession(session: Session): void {
  if (loadSession()?.token === session.token) localStorage.removeItem(key)
}

/** The conversation that was shown before a reload. */
export function loadPlace(): string | null {
  return sessionStorage.getItem(placeKey)
}

export function savePlace(conversation: string | null): void {
  if (conversation === null) sessionStorage.removeItem(placeKey)
  else sessionStorage.setItem(placeKey, conversation)
}
