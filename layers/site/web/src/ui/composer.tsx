import { useEffect, useId, useLayoutEffect, useRef, useState, type KeyboardEvent } from 'react'
import type { ChatClient } from '../core/client'
import { maxTextBytes } from '../core/protocol'
import type { ConversationView } from '../core/state'
import { Send } from './icons'

const encoder = new TextEncoder()

export function Composer({ client, view }: { client: ChatClient; view: ConversationView }) {
  const [text, setText] = useState('')
  const area = useRef<HTMLTextAreaElement>(null)
  const id = useId()
  const bytes = encoder.encode(text).length
  const tooLong = bytes > maxTextBytes

  useEffect(() => {
    // A keyboard on the screen would cover what was opened to be read.
    if (window.matchMedia('(pointer: fine)').matches) area.current?.focus()
  }, [])
  useLayoutEffect(() => {
    const a = area.current!
    a.style.height = 'auto'
    a.style.height = `${Math.min(a.scrollHeight, 180)}px`
  }, [text])

  function send() {
    if (!text.trim() || tooLong) return
    client.send(view.id, text.trim())
    setText('')
    area.current?.focus()
  }

  function key(event: KeyboardEvent) {
    // An input method uses Enter to choose what was composed.
    if (event.key !== 'Enter' || event.shiftKey || event.nativeEvent.isComposing) return
    event.preventDefault()
    send()
  }

  return (
    <form className="composer" onSubmit={(e) => { e.preventDefault(); send() }}>
      <label className="hidden" htmlFor={id}>Message to {view.title}</label>
      <textarea
        ref={area} id={id} data-testid="composer" rows={1} value={text} placeholder={`Message ${view.title}`} enterKeyHint="send"
        aria-invalid={tooLong || undefined} onKeyDown={key}
        onChange={(e) => {
          setText(e.target.value)
          if (e.target.value) client.typing(view.id)
        }}
      />
      {bytes > maxTextBytes * 0.9 && (
        <span className={`composer-count${tooLong ? ' over' : ''}`} role="status">{tooLong ? `${bytes - maxTextBytes} bytes too long` : `${maxTextBytes - bytes} bytes left`}</span>
      )}
      <button type="submit" className="send" data-testid="send" aria-label="Send" disabled={!text.trim() || tooLong}><Send /></button>
    </form>
  )
}
