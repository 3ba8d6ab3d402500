import type { Message } from './protocol'

/** Beyond this many held frames a hole is filled by pages alone. */
const maxHeld = 500

/**
 * The messages of one conversation that this client holds: a window without a hole, in ascending seq, each seq once.
 *
 * first and last are the window's ends; first is last + 1 while it is empty. A frame beyond last + 1 is held back
 * until what is missing has come. What precedes first is history, which only prepend adds.
 */
export class ConversationLog {
  /** Replaced, never changed, so that a reader can compare by identity. */
  messages: readonly Message[] = []
  first: number
  last: number
  private readonly held = new Map<number, Message>()

  /** @param base the seq that the window begins after */
  constructor(base: number) {
    this.last = base
    this.first = base + 1
  }

  /** There is nothing before the window. */
  get atStart(): boolean {
    return this.first <= 1
  }

  /** Frames wait for others that are missing. */
  get hole(): boolean {
    return this.held.size > 0
  }

  /** Adds one live or replayed message. Answers those that joined the window: none for a duplicate or beyond a hole. */
  add(message: Message): Message[] {
    if (message.seq <= this.last) {
      this.settle(message)
      return []
    }
    if (message.seq > this.last + 1) {
      if (this.held.size < maxHeld) this.held.set(message.seq, message)
      return []
    }
    return this.append(message)
  }

  /**
   * Adds a page of the store that follows last, in ascending seq. The store's word is final: a seq that it does not
   * have will never come, so it leaves no hole.
   */
  addPage(page: readonly Message[]): Message[] {
    const added: Message[] = []
    for (const message of page) {
      if (message.seq > this.last + 1 && this.messages.length === 0) this.first = message.seq
      if (message.seq > this.last) {
        this.last = message.seq - 1
        added.push(...this.append(message))
      }
    }
    return added
  }

  /**
   * Adds a page of the store that precedes the seq before, ascending; more says that there is still more before it.
   * A page that was asked for at another beginning of the window is ignored: it may not reach this one.
   */
  prepend(page: readonly Message[], before: number, more: boolean): void {
    if (before !== this.first) return
    const older = page.filter((m) => m.seq < before)
    this.messages = [...older, ...this.messages]
    this.first = more ? (older[0]?.seq ?? before) : 1
  }

  /** Forgets all but the latest count messages; history brings them again. */
  trim(count: number): void {
    if (this.messages.length <= count) return
    this.messages = this.messages.slice(-count)
    this.first = this.messages[0]!.seq
  }

  private append(message: Message): Message[] {
    const added = [message]
    this.held.delete(message.seq)
    this.last = message.seq
    for (;;) {
      const next = this.held.get(this.last + 1)
      if (!next) break
      this.held.delete(next.seq)
      this.last = next.seq
      added.push(next)
    }
    for (const seq of this.held.keys()) if (seq <= this.last) this.held.delete(seq)
    this.messages = [...this.messages, ...added]
    return added
  }

  private settle(message: Message): void {
    if (message.provisional) return
    const i = this.messages.findLastIndex((m) => m.seq === message.seq)
    if (i >= 0 && this.messages[i]!.provisional) this.messages = this.messages.with(i, message)
  }
}
