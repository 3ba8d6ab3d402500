import { memo, useContext, useEffect, useId, useRef, useState } from 'react'
import type { Outgoing } from '../core/outbox'
import type { Message } from '../core/protocol'
import { Avatar } from './avatar'
import { copy } from './copy'
import { full, time } from './format'
import { Check, Copy } from './icons'
import { TracesUrl } from './traces'

interface Props {
  message: Message
  mine: boolean
  /** It stands directly below another one of the same person. */
  follows: boolean
  showName: boolean
}

export const MessageBubble = memo(function MessageBubble({ message, mine, follows, showName }: Props) {
  const [open, setOpen] = useState(false)
  const id = useId()
  return (
    <li className={`message${mine ? ' mine' : ''}${follows ? ' follows' : ''}`} data-testid="message" data-seq={message.seq} data-state="stored">
      {!mine && (follows ? <span className="avatar-space" /> : <Avatar user={{ id: message.fromUserId, name: message.fromUserName }} />)}
      <div className="message-body">
        {!follows && !mine && showName && <span className={`author ink-${message.fromUserId % 8}`}>{message.fromUserName}</span>}
        <div className="bubble">
          <span className="text" data-testid="message-text">{message.msg}</span>
          <button
            type="button" className="stamp" data-testid="message-details" title={`${full(message.createdAt)} · details`} aria-expanded={open} aria-controls={id}
            onClick={() => setOpen(!open)}
          >
            <time dateTime={message.createdAt}>{time(message.createdAt)}</time><span className="hidden"> details of this message</span>
          </button>
        </div>
        {open && <Details id={id} message={message} />}
      </div>
    </li>
  )
})

function Details({ id, message }: { id: string; message: Message }) {
  const [copied, setCopied] = useState(false)
  const traces = useContext(TracesUrl)
  const box = useRef<HTMLDListElement>(null)
  useEffect(() => {
    box.current?.scrollIntoView({ block: 'nearest' })
  }, [])
  return (
    <dl ref={box} className="details" id={id} data-testid="details">
      <dt>Message</dt><dd data-testid="details-id">{message.id}</dd>
      <dt>Position</dt><dd><span>{message.conversation}</span> · <span data-testid="details-seq">{message.seq}</span></dd>
      <dt>Sent</dt><dd>{full(message.createdAt)}</dd>
      <dt>Trace</dt>
      <dd className="trace">
        {message.traceId && traces ? (
          <a className="link" data-testid="details-trace" href={`${traces}/${message.traceId}`} target="_blank" rel="noreferrer" title="Where this message went, and how long it took">{message.traceId}</a>
        ) : (
          <span data-testid="details-trace">{message.traceId || 'none'}</span>
        )}
        {message.traceId && (
          <button type="button" className="icon-button" data-testid="copy-trace" aria-label="Copy the trace id" onClick={() => setCopied(copy(message.traceId))}>
            {copied ? <Check /> : <Copy />}
          </button>
        )}
        <span className="hidden" role="status">{copied ? 'Copied' : ''}</span>
      </dd>
    </dl>
  )
}

export function OutgoingBubble({ outgoing, follows, onRetry, onDiscard }: { outgoing: Outgoing; follows: boolean; onRetry: () => void; onDiscard: () => void }) {
  const failed = outgoing.state === 'failed'
  return (
    <li className={`message mine pending${failed ? ' failed' : ''}${follows ? ' follows' : ''}`} data-testid="message" data-state={outgoing.state}>
      <div className="message-body">
        <div className="bubble">
          <span className="text" data-testid="message-text">{outgoing.text}</span>
          <span className="stamp">{failed ? 'not sent' : 'sending…'}</span>
        </div>
        {failed && (
          <p className="failure" role="alert">
            <span>{outgoing.reason} <code>{outgoing.code}</code></span>
            <button type="button" className="link" data-testid="retry" onClick={onRetry}>Retry</button>
            <button type="button" className="link" data-testid="discard" onClick={onDiscard}>Discard</button>
          </p>
        )}
      </div>
    </li>
  )
}
