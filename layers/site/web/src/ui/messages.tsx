import { Fragment, useEffect, useLayoutEffect, useRef, useState } from 'react'
import type { ChatClient } from '../core/client'
import type { Message, User } from '../core/protocol'
import type { ConversationView } from '../core/state'
import { MessageBubble, OutgoingBubble } from './bubble'
import { day } from './format'
import { Down } from './icons'

/** So near the end, in pixels, new messages keep the end in view. */
const endSlack = 80
/** So near the beginning history is loaded. */
const startSlack = 300
/** Messages of one person within this time, in milliseconds, stand together. */
const togetherMs = 5 * 60_000

/** The messages of one conversation. It is mounted anew for each. */
export function Messages({ client, me, view }: { client: ChatClient; me: User; view: ConversationView }) {
  const box = useRef<HTMLDivElement>(null)
  const atEnd = useRef(true)
  const before = useRef({ height: 0, first: 0, outgoing: 0 })
  const asked = useRef(-1)
  const [below, setBelow] = useState(0)
  // Where the line "New" stands: fixed when the conversation is opened.
  const [readAt] = useState(view.unread > 0 ? view.readSeq : 0)
  const { id, messages, outgoing, atStart, loaded, loadingOlder } = view
  const first = messages[0]?.seq ?? 0
  const last = messages.at(-1)

  useLayoutEffect(() => {
    const b = box.current!
    const was = before.current
    if (was.first > 0 && first < was.first && !atEnd.current) b.scrollTop += b.scrollHeight - was.height
    else if (atEnd.current || outgoing.length > was.outgoing) b.scrollTop = b.scrollHeight
    before.current = { height: b.scrollHeight, first, outgoing: outgoing.length }
  }, [messages, outgoing, first])

  // Too few messages to scroll: nothing else would ask for more. Once for each beginning, so that a failure does not repeat.
  useEffect(() => {
    const b = box.current!
    if (!loaded || loadingOlder || atStart || asked.current === first || b.scrollHeight > b.clientHeight + startSlack) return
    asked.current = first
    void client.loadOlder(id)
  }, [client, id, loaded, loadingOlder, atStart, first])

  // Read is what stands at the end of a page that is in view.
  const lastSeq = last?.seq ?? 0
  const seenSeq = useRef(0)
  useEffect(() => {
    const look = () => {
      if (document.visibilityState !== 'visible' || !atEnd.current) return
      seenSeq.current = lastSeq
      setBelow(0)
      client.seen(id)
    }
    look()
    if (!atEnd.current) setBelow(messages.filter((m) => m.seq > seenSeq.current && m.fromUserId !== me.id).length)
    document.addEventListener('visibilitychange', look)
    return () => document.removeEventListener('visibilitychange', look)
  }, [client, id, lastSeq, loaded, messages, me.id])

  useEffect(() => {
    const b = box.current!
    const observer = new ResizeObserver(() => {
      if (atEnd.current) b.scrollTop = b.scrollHeight
    })
    observer.observe(b)
    return () => observer.disconnect()
  }, [])

  function scrolled() {
    const b = box.current!
    const wasAtEnd = atEnd.current
    atEnd.current = b.scrollHeight - b.scrollTop - b.clientHeight < endSlack
    if (atEnd.current && !wasAtEnd) {
      seenSeq.current = lastSeq
      setBelow(0)
      client.seen(id)
    }
    if (b.scrollTop < startSlack && loaded && !atStart && !loadingOlder) void client.loadOlder(id)
  }

  function toEnd() {
    const b = box.current!
    b.scrollTop = b.scrollHeight
  }

  const spoken = last && last.fromUserId !== me.id ? `${last.fromUserName}: ${last.msg}` : ''
  return (
    <div className="messages-wrap">
      <div className="messages" ref={box} onScroll={scrolled} tabIndex={0} role="region" aria-label="Messages">
        <div className="messages-top muted">
          {!loaded || loadingOlder ? 'Loading…' : atStart ? (messages.length + outgoing.length > 0 ? 'This is where it began.' : 'Nothing here yet. Say hello!') : ''}
        </div>
        <ol className="message-list">
          {messages.map((m, i) => {
            const previous = messages[i - 1]
            const newDay = !previous || day(previous.createdAt) !== day(m.createdAt)
            const isNew = readAt > 0 && m.seq > readAt && (previous ? previous.seq <= readAt : m.seq === readAt + 1)
            return (
              <Fragment key={m.seq}>
                {newDay && <li className="divider" role="separator"><span>{day(m.createdAt)}</span></li>}
                {isNew && <li className="divider new" role="separator"><span>New</span></li>}
                <MessageBubble message={m} mine={m.fromUserId === me.id} follows={!newDay && !isNew && together(previous, m)} showName={m.roomId > 0 && m.toUserId === 0} />
              </Fragment>
            )
          })}
          {outgoing.map((o, i) => (
            <OutgoingBubble key={o.clientId} outgoing={o} follows={i > 0 || last?.fromUserId === me.id} onRetry={() => client.retry(o.clientId)} onDiscard={() => client.discard(o.clientId)} />
          ))}
        </ol>
      </div>
      {below > 0 && (
        <button type="button" className="jump" data-testid="jump" onClick={toEnd}><Down />{below} new</button>
      )}
      <div className="hidden" aria-live="polite">{loaded ? spoken : ''}</div>
    </div>
  )
}

function together(a: Message | undefined, b: Message): boolean {
  return a !== undefined && a.fromUserId === b.fromUserId && Date.parse(b.createdAt) - Date.parse(a.createdAt) < togetherMs
}
