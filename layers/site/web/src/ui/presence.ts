import type { ChatState } from '../core/state'

/** Whether someone is seen in any of the rooms that this client is in. */
export function isOnline(state: ChatState, user: number): boolean {
  if (user === state.me.id) return state.status.state === 'connected'
  for (const room of state.online.values()) if (room.users.some((u) => u.id === user)) return true
  return false
}
