import type { User } from '../core/protocol'

const hues = 8

/** Initials on a colour that is the person's own. Decoration: the name always stands beside it. */
export function Avatar({ user, online, small }: { user: User; online?: boolean; small?: boolean }) {
  const letters = user.name.trim().split(/[\s._-]+/).slice(0, 2).map((w) => [...w][0] ?? '').join('')
  return (
    <span className={`avatar hue-${user.id % hues}${small ? ' small' : ''}`} aria-hidden="true">
      {letters.toUpperCase() || '?'}
      {online && <span className="presence" />}
    </span>
  )
}
