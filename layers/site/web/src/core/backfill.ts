import type { Conversation } from './conversation'
import type { Message } from './protocol'
import type { Rest } from './rest'

const againMs = 2_000

/** Brings messages from the store into the logs: what is missing at their end, and history at their beginning. */
export class Backfill {
  private stopped = false
  private readonly rest: Pick<Rest, 'after' | 'before'>
  private readonly arrived: (c: Conversation, added: readonly Message[]) => void
  private readonly failed: (err: unknown) => void

  constructor(
    rest: Pick<Rest, 'after' | 'before'>,
    arrived: (c: Conversation, added: readonly Message[]) => void,
    failed: (err: unknown) => void,
  ) {
    this.rest = rest
    this.arrived = arrived
    this.failed = failed
  }

  stop(): void {
    this.stopped = true
  }

  /** Asks for what follows the log until there is no more, and again later while a hole stays. One call at a time. */
  async newer(c: Conversation): Promise<void> {
    if (c.filling || this.stopped || !c.log) return
    c.filling = true
    clearTimeout(c.fillTimer)
    try {
      for (;;) {
        const page = await this.rest.after(c.target, c.log.last)
        if (this.stopped) return
        this.arrived(c, c.log.addPage(page.messages))
        if (!page.more || page.messages.length === 0) break
      }
    } catch (err) {
      this.failed(err)
    } finally {
      c.filling = false
    }
    // Not answered, or a store that lags behind what was pushed.
    if (c.log.hole && !this.stopped) c.fillTimer = setTimeout(() => void this.newer(c), againMs)
  }

  /** Adds one page before the log, or the latest one to a log that is not there yet. Answers the page; rejects as Rest does. */
  async older(c: Conversation): Promise<Message[]> {
    for (;;) {
      const known = c.log
      const before = known?.first ?? Number.MAX_SAFE_INTEGER
      const page = await this.rest.before(c.target, before)
      // A frame came meanwhile and fixed where the log begins: the page may not reach it.
      if (!known && c.log) continue
      const log = c.logFrom(page.messages.at(-1)?.seq ?? 0)
      log.prepend(page.messages, known ? before : log.first, page.more)
      c.loaded = true
      return page.messages
    }
  }
}
