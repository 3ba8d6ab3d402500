/** How often a conversation that is being read tells the server so. */
const everyMs = 500

/** Read marks on their way to the server, gathered so that a busy room does not cost a frame for each message. */
export class Marks {
  private readonly unsent = new Map<string, number>()
  private timer: ReturnType<typeof setTimeout> | undefined
  private readonly send: (conversation: string, seq: number) => boolean

  /** @param send answers false if it cannot send now: the mark then waits for flush */
  constructor(send: (conversation: string, seq: number) => boolean) {
    this.send = send
  }

  set(conversation: string, seq: number): void {
    this.unsent.set(conversation, seq)
    this.timer ??= setTimeout(() => this.flush(), everyMs)
  }

  flush(): void {
    this.stop()
    for (const [conversation, seq] of this.unsent) {
      if (this.send(conversation, seq)) this.unsent.delete(conversation)
    }
  }

  stop(): void {
    clearTimeout(this.timer)
    this.timer = undefined
  }
}
