import { useEffect, useId, useRef, useState, type FormEvent } from 'react'
import type { ChatClient } from '../core/client'
import { ApiError } from '../core/rest'

export function NewRoom({ client, onClose }: { client: ChatClient; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  const [name, setName] = useState('')
  const [isPrivate, setPrivate] = useState(false)
  const [busy, setBusy] = useState(false)
  const [problem, setProblem] = useState<{ code: string; text: string } | null>(null)
  const id = useId()

  useEffect(() => {
    const d = dialog.current!
    d.showModal()
    return () => d.close()
  }, [])

  async function submit(event: FormEvent) {
    event.preventDefault()
    if (busy || !name.trim()) return
    setBusy(true)
    try {
      await client.createRoom(name.trim(), isPrivate)
      onClose()
    } catch (err) {
      if (!(err instanceof ApiError)) throw err
      setProblem({ code: err.code, text: err.code === 'conflict' ? 'A room of that name exists already.' : err.message })
      setBusy(false)
    }
  }

  return (
    <dialog ref={dialog} className="dialog" aria-labelledby={`${id}-title`} onCancel={onClose} onClick={(e) => e.target === dialog.current && onClose()}>
      <form onSubmit={(e) => void submit(e)}>
        <h2 id={`${id}-title`}>New room</h2>
        <label htmlFor={`${id}-name`}>Name</label>
        <input
          id={`${id}-name`} data-testid="new-room-name" value={name} onChange={(e) => setName(e.target.value)} maxLength={64}
          placeholder="e.g. release planning" autoComplete="off" required autoFocus
        />
        <label className="check">
          <input type="checkbox" data-testid="new-room-private" checked={isPrivate} onChange={(e) => setPrivate(e.target.checked)} />
          <span>Private<small>Only members can find and read it.</small></span>
        </label>
        {problem && <p className="alert" role="alert" data-testid="new-room-error">{problem.text} <code>{problem.code}</code></p>}
        <div className="dialog-buttons">
          <button type="button" className="quiet" onClick={onClose}>Cancel</button>
          <button type="submit" className="primary" data-testid="new-room-submit" disabled={busy}>Create room</button>
        </div>
      </form>
    </dialog>
  )
}
