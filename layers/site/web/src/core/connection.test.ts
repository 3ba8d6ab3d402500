import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { backoffMs } from './backoff'
import { Connection, answerMs, pingMs, type Status } from './connection'
import { Op, type ServerFrame } from './protocol'
import { FakeSocket } from './testing'

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

function connect() {
  const sockets: FakeSocket[] = []
  const statuses: Status[] = []
  const frames: ServerFrame[] = []
  const ends: string[] = []
  let doubts = 0
  const connection = new Connection({
    url: 'ws://x/ws',
    token: 'secret',
    openSocket: () => {
      const s = new FakeSocket()
      sockets.push(s)
      return s
    },
    hello: () => ({ roomId: 1, resume: { 'room:1': 7 } }),
    have: () => ({ 'room:1': 7 }),
    onFrame: (f) => frames.push(f),
    onStatus: (s) => statuses.push(s),
    onReady: () => {},
    onDoubt: () => doubts++,
    onEnded: (code, message) => ends.push(`${code}: ${message}`),
    random: () => 0.5,
  })
  connection.start()
  return { connection, sockets, statuses, frames, ends, doubts: () => doubts, socket: () => sockets.at(-1)!, status: () => statuses.at(-1)! }
}

describe('backoff', () => {
  test.each([
    [0, 250, 500],
    [1, 500, 1000],
    [3, 2000, 4000],
    [6, 15_000, 30_000],
    [50, 15_000, 30_000],
    [5000, 15_000, 30_000],
  ])('attempt %i waits from %i to %i ms', (attempt, low, high) => {
    expect(backoffMs(attempt, () => 0)).toBe(low)
    expect(backoffMs(attempt, () => 0.999999)).toBe(high)
  })
})

test('the first frame authenticates and resumes, a ping follows', () => {
  const { socket, status } = connect()
  socket().onopen!()
  expect(socket().sent).toEqual([
    { op: Op.Auth, authToken: 'secret', device: 'web', roomId: 1, resume: { 'room:1': 7 } },
    { op: Op.Ping, have: { 'room:1': 7 } },
  ])
  expect(status().state).toBe('connecting')
  socket().receive({ op: Op.Pong })
  expect(status().state).toBe('connected')
})

test('nothing is sent before the server has answered', () => {
  const { connection, socket } = connect()
  socket().onopen!()
  expect(connection.send({ op: Op.Enter, roomId: 2 })).toBe(false)
  socket().receive({ op: Op.Pong })
  expect(connection.send({ op: Op.Enter, roomId: 2 })).toBe(true)
})

test('failures wait longer and longer; a good connection starts anew', () => {
  const { sockets, socket, status } = connect()
  const waits: number[] = []
  for (let i = 0; i < 4; i++) {
    socket().hangUp(1006)
    const s = status()
    const wait = s.state === 'waiting' ? s.retryAt - Date.now() : -1
    waits.push(wait)
    vi.advanceTimersByTime(wait)
  }
  expect(waits).toEqual([375, 750, 1500, 3000])
  expect(sockets.length).toBe(5)
  socket().accept()
  vi.advanceTimersByTime(20_000)
  socket().hangUp(1006)
  expect(status()).toEqual({ state: 'waiting', retryAt: Date.now() + 375 })
})

test('a connection that is accepted and closed at once does not start the backoff anew', () => {
  const { socket, status } = connect()
  for (let i = 0; i < 3; i++) {
    socket().accept()
    const s = (socket().hangUp(4003), status())
    vi.advanceTimersByTime(s.state === 'waiting' ? s.retryAt - Date.now() : 0)
  }
  socket().hangUp(4003)
  expect(status()).toEqual({ state: 'waiting', retryAt: Date.now() + 3000 })
})

describe('going away', () => {
  test('comes back when the server said', () => {
    const { sockets, socket, status } = connect()
    socket().accept()
    socket().receive({ op: Op.GoingAway, reconnectAfterMs: 1840 })
    vi.advanceTimersByTime(840)
    socket().hangUp(1012)
    expect(status()).toEqual({ state: 'waiting', retryAt: Date.now() + 1000 })
    vi.advanceTimersByTime(999)
    expect(sockets.length).toBe(1)
    vi.advanceTimersByTime(1)
    expect(sockets.length).toBe(2)
  })

  test('leaves a server that does not close', () => {
    const { sockets, socket } = connect()
    socket().accept()
    socket().receive({ op: Op.GoingAway, reconnectAfterMs: 1840 })
    vi.advanceTimersByTime(1840)
    expect(sockets[0]!.closed).toBe(true)
    vi.advanceTimersByTime(1)
    expect(sockets.length).toBe(2)
  })
})

describe('the end of a session', () => {
  test.each([
    [4001, 'session_ended'],
    [4002, 'replaced'],
  ])('close code %i is final', (code, word) => {
    const { sockets, socket, status, ends } = connect()
    socket().accept()
    socket().hangUp(code, 'why')
    vi.advanceTimersByTime(120_000)
    expect(ends).toEqual([`${word}: why`])
    expect(status().state).toBe('stopped')
    expect(sockets.length).toBe(1)
  })

  test('an error frame before a close without a code is final', () => {
    const { sockets, socket, ends } = connect()
    socket().accept()
    socket().receive({ op: Op.Error, code: 'session_ended', message: 'sign in again' })
    socket().hangUp(1006)
    vi.advanceTimersByTime(120_000)
    expect(ends).toEqual(['session_ended: sign in again'])
    expect(sockets.length).toBe(1)
  })

  test('not being taken for who one is is a doubt: it may have been too late', () => {
    const { sockets, socket, ends, doubts } = connect()
    socket().onopen!()
    socket().receive({ op: Op.Error, code: 'unauthenticated', message: 'not authenticated in time' })
    socket().hangUp(1008)
    expect(doubts()).toBe(1)
    vi.advanceTimersByTime(1000)
    expect(sockets.length).toBe(2)
    expect(ends).toEqual([])
  })

  test('a server that cannot authenticate now is asked again when it said', () => {
    const { sockets, socket, status, ends, doubts } = connect()
    socket().onopen!()
    socket().receive({ op: Op.Error, code: 'unavailable', message: 'later', retryAfterMs: 1000 })
    expect(sockets[0]!.closed).toBe(true)
    expect(status()).toEqual({ state: 'waiting', retryAt: Date.now() + 1000 })
    vi.advanceTimersByTime(1000)
    socket().accept()
    expect(status().state).toBe('connected')
    expect([ends, doubts()]).toEqual([[], 0])
  })

  test.each([1000, 1001, 1006, 1007, 1009, 1011, 1012, 4003])('close code %i reconnects', (code) => {
    const { sockets, socket, ends } = connect()
    socket().accept()
    socket().hangUp(code)
    vi.advanceTimersByTime(30_000)
    expect(ends).toEqual([])
    expect(sockets.length).toBeGreaterThan(1)
  })
})

describe('liveness', () => {
  test('a ping without an answer gives the socket up', () => {
    const { sockets, socket, status } = connect()
    socket().accept()
    vi.advanceTimersByTime(pingMs)
    expect(socket().of(Op.Ping).length).toBe(2)
    vi.advanceTimersByTime(answerMs)
    expect(sockets[0]!.closed).toBe(true)
    expect(status().state).toBe('waiting')
  })

  test('answered pings keep it', () => {
    const { sockets, socket, status } = connect()
    socket().accept()
    for (let i = 0; i < 20; i++) {
      vi.advanceTimersByTime(pingMs)
      socket().receive({ op: Op.Pong })
    }
    expect(sockets.length).toBe(1)
    expect(status().state).toBe('connected')
  })

  test('a socket that never opens is given up', () => {
    const { sockets } = connect()
    vi.advanceTimersByTime(answerMs + 1000)
    expect(sockets.length).toBe(2)
  })

  test('a ping of the server is answered', () => {
    const { socket } = connect()
    socket().accept()
    socket().receive({ op: Op.Ping })
    expect(socket().sent.at(-1)).toEqual({ op: Op.Pong })
  })

  test('what is not a frame is ignored', () => {
    const { socket, frames } = connect()
    socket().accept()
    for (const data of ['', 'x', 'null', '[]', '{}', '{"op":99}', '{"op":"3"}']) socket().onmessage!({ data })
    expect(frames.map((f) => f.op)).toEqual([Op.Pong])
  })
})

test('no network: waits for it without trying, then connects at once', () => {
  const { connection, sockets, socket, status } = connect()
  socket().accept()
  connection.setOnline(false)
  expect(status().state).toBe('offline')
  vi.advanceTimersByTime(120_000)
  expect(sockets.length).toBe(1)
  connection.setOnline(true)
  expect(sockets.length).toBe(2)
})

test('stop closes and stays closed', () => {
  const { connection, sockets } = connect()
  sockets[0]!.accept()
  connection.stop()
  connection.retryNow()
  connection.setOnline(false)
  connection.setOnline(true)
  vi.advanceTimersByTime(120_000)
  expect(sockets.length).toBe(1)
  expect(sockets[0]!.closed).toBe(true)
})
