const baseMs = 500
const capMs = 30_000

/**
 * The wait before reconnecting, in milliseconds: doubling from half a second to half a minute, of which the second
 * half is random so that clients who lost the same node do not return as one.
 */
export function backoffMs(attempt: number, random: () => number = Math.random): number {
  const ceiling = Math.min(capMs, baseMs * 2 ** Math.min(attempt, 16))
  return Math.round(ceiling / 2 + (ceiling / 2) * random())
}
