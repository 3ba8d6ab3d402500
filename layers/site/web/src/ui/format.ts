const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })
const shortDay = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' })
const longDay = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' })
const yearDay = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year: 'numeric' })

export function time(iso: string | number): string {
  return clock.format(new Date(iso))
}

/** The same text for all moments of one local day. */
export function day(iso: string | number, now: Date = new Date()): string {
  const date = new Date(iso)
  const days = Math.round((midnight(now) - midnight(date)) / 86_400_000)
  if (days === 0) return 'Today'
  if (days === 1) return 'Yesterday'
  return (date.getFullYear() === now.getFullYear() ? longDay : yearDay).format(date)
}

/** For lists: the time if it was today, else the day. */
export function brief(iso: string, now: Date = new Date()): string {
  const date = new Date(iso)
  return midnight(date) === midnight(now) ? clock.format(date) : shortDay.format(date)
}

export function full(iso: string): string {
  return new Date(iso).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'medium' })
}

export function count(n: number): string {
  return n > 99 ? '99+' : String(n)
}

function midnight(date: Date): number {
  return new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime()
}
