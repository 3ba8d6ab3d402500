import { ConversationLog } from './log'
import type { Message, Target, User } from './protocol'
import type { InboxEntry } from './rest'

/** Beyond this many messages the earliest are forgotten, where nobody looks at them. */
const keepMessages = 1000

/** How long one typing frame counts. */
const typingMs = 5_000

/** One conversation as this client knows it: its messages, what of them is read, and what goes on in it. */
export class Conversation {
  readonly id: string
  readonly target: Target
  /** null until the first thing is known of it: an inbox entry, a live frame or a page of history. */
  log: ConversationLog | null = null
  readSeq = 0
  unread = 0
  /** Between op 6 or 12 and its op 22: holes are about to be filled. */
  replaying = false
  filling = false
  fillTimer: ReturnType<typeof setTimeout> | undefined
  loadingOlder = false
  /** The latest page of history has been loaded. */
  loaded = false
  /** Messages up to this seq are counted in unread, or known to be read. */
  private countedTo = 0

  /** Who types, by user, each until its timer. */
  private readonly typists = new Map<number, { name: string; timer: ReturnType<typeof setTimeout> }>()
  private readonly changed: () => void

  /** @param changed called when someone has stopped typing */
  constructor(id: string, target: Target, changed: () => void) {
    this.id = id
    this.target = target
    this.changed = changed
  }

  get last(): number {
    return this.log?.last ?? 0
  }

  /** When something was said last, in milliseconds; 0 if nothing is known. */
  get activeAt(): number {
    return Date.parse(this.log?.messages.at(-1)?.createdAt ?? '') || 0
  }

  /** The log, which begins after base if nothing was known yet. */
  logFrom(base: number): ConversationLog {
    return (this.log ??= new ConversationLog(base))
  }

  /** Takes over what the inbox says, as far as it is newer than what is known here. */
  merge(entry: InboxEntry): void {
    if (!this.log) {
      this.log = new ConversationLog(entry.last ? entry.lastSeq - 1 : entry.lastSeq)
      if (entry.last) this.log.add(entry.last)
    }
    const readBefore = this.readSeq
    this.readSeq = Math.max(this.readSeq, entry.readSeq)
    if (entry.lastSeq >= this.countedTo) {
      this.unread = readBefore >= entry.lastSeq ? 0 : entry.unread
      this.countedTo = entry.lastSeq
    }
  }

  /** Counts messages that joined the log. */
  count(added: readonly Message[], me: number): void {
    for (const m of added) {
      if (m.seq <= this.countedTo) continue
      this.countedTo = m.seq
      if (m.seq > this.readSeq && m.fromUserId !== me) this.unread++
    }
  }

  /** Moves the read mark forward. Answers whether it moved. */
  read(seq: number, me: number): boolean {
    if (seq <= this.readSeq) return false
    this.readSeq = seq
    if (seq >= this.countedTo) {
      this.unread = 0
      this.countedTo = Math.max(this.countedTo, seq)
    } else if (this.log && this.log.first <= seq + 1) {
      this.unread = this.log.messages.filter((m) => m.seq > seq && m.fromUserId !== me).length
    }
    return true
  }

  /** Bounds what is kept of a conversation that is not being read upwards. */
  trim(): void {
    if (this.log && this.log.messages.length > keepMessages) this.log.trim(keepMessages / 2)
  }

  /** The names of those who type. */
  typing(): string[] {
    return [...this.typists.values()].map((t) => t.name)
  }

  types(user: User): void {
    clearTimeout(this.typists.get(user.id)?.timer)
    this.typists.set(user.id, { name: user.name, timer: setTimeout(() => this.typesNoMore(user.id), typingMs) })
  }

  typesNoMore(user: number): void {
    clearTimeout(this.typists.get(user)?.timer)
    if (this.typists.delete(user)) this.changed()
  }

  stop(): void {
    clearTimeout(this.fillTimer)
    for (const t of this.typists.values()) clearTimeout(t.timer)
    this.typists.clear()
  }
}
