import { describe, expect, test } from 'vitest'
import { ConversationLog } from './log'
import { roomMessage as m } from './testing'

function filled(from: number, to: number): ConversationLog {
  const log = new ConversationLog(from - 1)
  for (let seq = from; seq <= to; seq++) log.add(m(seq))
  return log
}

const seqs = (log: ConversationLog) => log.messages.map((x) => x.seq)

describe('live messages', () => {
  const cases: { name: string; come: number[]; want: number[]; hole: boolean }[] = [
    { name: 'in order', come: [1, 2, 3], want: [1, 2, 3], hole: false },
    { name: 'duplicates are dropped', come: [1, 1, 2, 1, 2, 3, 3], want: [1, 2, 3], hole: false },
    { name: 'beyond a hole is held', come: [1, 3, 4], want: [1], hole: true },
    { name: 'the hole filled releases what was held', come: [1, 4, 3, 2], want: [1, 2, 3, 4], hole: false },
    { name: 'duplicates of what is held', come: [1, 3, 3, 2, 3], want: [1, 2, 3], hole: false },
    { name: 'two holes', come: [2, 4, 1], want: [1, 2], hole: true },
  ]
  test.each(cases)('$name', ({ come, want, hole }) => {
    const log = new ConversationLog(0)
    const added = come.flatMap((seq) => log.add(m(seq)))
    expect(seqs(log)).toEqual(want)
    expect(added.map((x) => x.seq)).toEqual(want)
    expect(log.hole).toBe(hole)
  })

  test('every order of arrival gives one order of display', () => {
    const permute = (a: number[]): number[][] => (a.length < 2 ? [a] : a.flatMap((x, i) => permute(a.toSpliced(i, 1)).map((r) => [x, ...r])))
    for (const order of permute([1, 2, 3, 4, 5])) {
      const log = new ConversationLog(0)
      for (const seq of order) log.add(m(seq))
      expect(seqs(log)).toEqual([1, 2, 3, 4, 5])
    }
  })

  test('what is held is bounded', () => {
    const log = new ConversationLog(0)
    for (let seq = 2; seq < 2000; seq++) log.add(m(seq))
    log.add(m(1))
    expect(log.last).toBeLessThan(600)
    expect(log.hole).toBe(false)
  })
})

describe('pages of the store', () => {
  test('fill a hole and release what was held', () => {
    const log = filled(1, 2)
    log.add(m(6))
    expect(log.addPage([m(3), m(4), m(5)]).map((x) => x.seq)).toEqual([3, 4, 5, 6])
    expect(log.hole).toBe(false)
  })

  test('are the last word about what there is', () => {
    const log = filled(1, 2)
    log.addPage([m(5), m(6)])
    expect(seqs(log)).toEqual([1, 2, 5, 6])
    expect(log.hole).toBe(false)
  })

  test('overlap what is there', () => {
    const log = filled(1, 3)
    expect(log.addPage([m(2), m(3), m(4)]).map((x) => x.seq)).toEqual([4])
  })
})

describe('history', () => {
  test('goes before the window', () => {
    const log = filled(5, 6)
    log.prepend([m(3), m(4)], 5, true)
    expect(seqs(log)).toEqual([3, 4, 5, 6])
    expect(log.atStart).toBe(false)
    log.prepend([m(1), m(2)], 3, false)
    expect(log.atStart).toBe(true)
  })

  test('asked for before the window was trimmed is ignored', () => {
    const log = filled(5, 9)
    log.trim(2)
    log.prepend([m(3), m(4)], 5, true)
    expect(seqs(log)).toEqual([8, 9])
  })
})

test('the frame of the server replaces the message made from an ack', () => {
  const log = filled(1, 1)
  log.add(m(2, { provisional: true, createdAt: '2020-01-01T00:00:00Z' }))
  expect(log.add(m(2))).toEqual([])
  expect(log.messages[1]).toEqual(m(2))
  log.add(m(2, { msg: 'other' }))
  expect(log.messages[1]).toEqual(m(2))
})
