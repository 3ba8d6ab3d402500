import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { ChatClient } from './client'
import { ackMs } from './outbox'
import { pingMs } from './connection'
import { Op } from './protocol'
import { ApiError } from './rest'
import { FakeRest, FakeSocket, directMessage, me, roomMessage } from './testing'

beforeEach(() => vi.useFakeTimers())
afterEach(() => vi.useRealTimers())

const lobby = { id: 1, name: 'lobby', private: false, member: true }
const hall = { id: 2, name: 'hall', private: false, member: false }

/** A client whose user has the lobby with five messages, of which two are unread, and is connected. */
async function connected(prepare: (rest: FakeRest) => void = () => {}) {
  const rest = new FakeRest()
  rest.messages = [1, 2, 3, 4, 5].map((seq) => roomMessage(seq))
  rest.entries = [{ conversation: 'room:1', lastSeq: 5, readSeq: 3, unread: 2, last: roomMessage(5) }]
  prepare(rest)
  const sockets: FakeSocket[] = []
  const ends: string[] = []
  const client = new ChatClient({
    session: { token: 't', userId: me.id, name: me.name },
    rest,
    websocketUrl: 'ws://x/ws',
    openSocket: () => {
      const s = new FakeSocket()
      sockets.push(s)
      return s
    },
    onEnded: (code) => ends.push(code),
    random: () => 0,
  })
  await client.start()
  sockets[0]!.accept()
  await settle()
  const socket = () => sockets.at(-1)!
  return {
    client, rest, sockets, ends, socket,
    view: (id: string) => client.state.conversations.get(id)!,
    seqs: (id: string) => client.state.conversations.get(id)!.messages.map((m) => m.seq),
    async receive(...frames: object[]) {
      for (const f of frames) socket().receive(f)
      await settle()
    },
    async reconnect() {
      const before = sockets.length
      socket().onclose?.({ code: 1006, reason: '' })
      while (sockets.length === before) await vi.advanceTimersByTimeAsync(50)
      socket().accept()
      await settle()
    },
  }
}

const settle = () => vi.advanceTimersByTimeAsync(0)

describe('order', () => {
  test('duplicates are dropped', async () => {
    const { receive, seqs, view } = await connected()
    await receive(roomMessage(6), roomMessage(6), roomMessage(5))
    expect(seqs('room:1')).toEqual([5, 6])
    expect(view('room:1').unread).toBe(3)
  })

  test('a message beyond a hole is held until the store has filled it', async () => {
    const { receive, seqs, rest, client } = await connected()
    let answer = () => {}
    const { after } = rest
    rest.after = (t, s) => new Promise((resolve) => (answer = () => resolve(after(t, s))))
    rest.messages.push(roomMessage(6), roomMessage(7), roomMessage(8))
    await receive({ op: Op.ReplayDone, conversation: 'room:1', from: 6, to: 5, more: false }, roomMessage(8))
    expect(seqs('room:1')).toEqual([5])
    answer()
    await settle()
    expect(seqs('room:1')).toEqual([5, 6, 7, 8])
    expect(client.state.conversations.get('room:1')!.unread).toBe(5)
  })

  test('a hole that the store cannot fill yet is asked for again', async () => {
    const { receive, seqs, rest } = await connected()
    await receive({ op: Op.ReplayDone, conversation: 'room:1', from: 6, to: 5, more: false }, roomMessage(7))
    expect(seqs('room:1')).toEqual([5])
    rest.messages.push(roomMessage(6), roomMessage(7))
    await vi.advanceTimersByTimeAsync(5000)
    expect(seqs('room:1')).toEqual([5, 6, 7])
  })

  test('a live message during a replay waits for it, without asking the store', async () => {
    const { receive, seqs, rest } = await connected()
    await receive(roomMessage(8), roomMessage(6), roomMessage(7), { op: Op.ReplayDone, conversation: 'room:1', from: 6, to: 7, more: false })
    expect(seqs('room:1')).toEqual([5, 6, 7, 8])
    expect(rest.calls.filter((c) => c.startsWith('after'))).toEqual([])
  })

  test('a pong that names a head ahead is followed up', async () => {
    const { receive, seqs, rest, socket } = await connected()
    rest.messages.push(roomMessage(6))
    await vi.advanceTimersByTimeAsync(pingMs)
    expect(socket().sent.at(-1)).toEqual({ op: Op.Ping, have: { 'room:1': 5 } })
    await receive({ op: Op.Pong, heads: { 'room:1': 6 } })
    expect(seqs('room:1')).toEqual([5, 6])
  })

  test('history is loaded on opening and on scrolling up', async () => {
    const { client, seqs, view, rest } = await connected((r) => (r.pageSize = 2))
    client.openRoom(lobby)
    await settle()
    expect(seqs('room:1')).toEqual([3, 4, 5])
    await client.loadOlder('room:1')
    await settle()
    expect(seqs('room:1')).toEqual([1, 2, 3, 4, 5])
    expect(view('room:1').atStart).toBe(true)
    await client.loadOlder('room:1')
    expect(rest.calls.filter((c) => c.startsWith('before'))).toEqual(['before 5', 'before 3'])
  })

  test('a live message that outruns the first page does not leave a hole', async () => {
    const { client, receive, seqs, rest } = await connected((r) => {
      r.roomList = [lobby, hall]
      r.entries = []
    })
    let answer = () => {}
    const { before } = rest
    rest.before = async (t, s) => {
      const page = await before(t, s) // as of now, before 6 was said
      await new Promise<void>((resolve) => (answer = resolve))
      return page
    }
    client.openRoom(lobby)
    await settle()
    rest.before = before
    rest.messages.push(roomMessage(6), roomMessage(7))
    await receive(roomMessage(7))
    answer()
    await settle()
    expect(seqs('room:1')).toEqual([1, 2, 3, 4, 5, 6, 7])
  })
})

describe('resume', () => {
  test('names the last seq of each conversation and the room that is open', async () => {
    const { client, receive, reconnect, socket } = await connected((r) => {
      r.entries.push({ conversation: 'dm:3:7', lastSeq: 2, readSeq: 2, unread: 0, last: directMessage(2) })
    })
    client.openRoom(lobby)
    await receive(roomMessage(6), directMessage(3))
    await reconnect()
    expect(socket().sent[0]).toEqual({ op: Op.Auth, authToken: 't', device: 'web', roomId: 1, resume: { 'room:1': 6, 'dm:3:7': 3 } })
  })

  test('does not name what is held beyond a hole', async () => {
    const { receive, reconnect, socket } = await connected()
    await receive(roomMessage(9))
    await reconnect()
    expect(socket().sent[0]!['resume']).toEqual({ 'room:1': 5 })
  })

  test('nothing known: no resume, which would replay all that is unread', async () => {
    const { socket } = await connected((r) => (r.entries = []))
    expect(socket().sent[0]).toEqual({ op: Op.Auth, authToken: 't', device: 'web' })
  })

  test('more pages are asked for until there are none', async () => {
    const { receive, seqs, socket } = await connected()
    await receive(roomMessage(6), { op: Op.ReplayDone, conversation: 'room:1', from: 6, to: 6, more: true })
    expect(socket().of(Op.Replay)).toEqual([{ op: Op.Replay, resume: { 'room:1': 6 } }])
    await receive(roomMessage(7), { op: Op.ReplayDone, conversation: 'room:1', from: 7, to: 7, more: false })
    expect(socket().of(Op.Replay).length).toBe(1)
    expect(seqs('room:1')).toEqual([5, 6, 7])
  })

  test('rooms are entered again', async () => {
    const { client, reconnect, socket } = await connected((r) => (r.roomList = [lobby, { ...hall, member: true }]))
    expect(socket().of(Op.Enter).map((f) => f['roomId'])).toEqual([1, 2])
    client.openRoom(lobby)
    await reconnect()
    expect(socket().of(Op.Enter).map((f) => f['roomId'])).toEqual([2])
  })

  test('a room that was only looked at is left', async () => {
    const { client, socket } = await connected()
    client.openRoom(hall)
    client.openRoom(lobby)
    expect(socket().sent.filter((f) => f['op'] === Op.Enter || f['op'] === Op.Leave).map((f) => [f['op'], f['roomId']])).toEqual([
      [Op.Enter, 1],
      [Op.Enter, 2],
      [Op.Leave, 2],
    ])
  })
})

describe('sending', () => {
  async function sending() {
    const t = await connected((r) => {
      r.entries.push({ conversation: 'dm:3:7', lastSeq: 2, readSeq: 2, unread: 0, last: directMessage(2) })
    })
    t.client.openRoom(lobby)
    await settle()
    await t.receive({ op: Op.ReplayDone, conversation: 'room:1', from: 6, to: 5, more: false })
    await t.receive({ op: Op.ReplayDone, conversation: 'dm:3:7', from: 3, to: 2, more: false })
    const send = async (id: string) => {
      t.client.send(id, 'hello')
      await settle()
      return t.view(id).outgoing.at(-1)!.clientId
    }
    const ack = (conversation: string, seq: number, clientId: string) => ({ op: Op.Ack, clientId, id: '77', conversation, seq, traceId: 'f'.repeat(32) })
    return { ...t, send, ack }
  }

  test('in a room: the ack and the own frame make one message, whichever comes first', async () => {
    for (const ackFirst of [true, false]) {
      const { send, ack, receive, seqs, view, socket } = await sending()
      const clientId = await send('room:1')
      expect(socket().sent.at(-1)).toEqual({ op: Op.Room, roomId: 1, msg: 'hello', clientId })
      expect(view('room:1').outgoing[0]!.state).toBe('sending')
      const own = roomMessage(6, { clientId, fromUserId: me.id, fromUserName: me.name, msg: 'hello' })
      const both = [ack('room:1', 6, clientId), own]
      await receive(...(ackFirst ? both : both.reverse()))
      expect(seqs('room:1')).toEqual([1, 2, 3, 4, 5, 6])
      expect(view('room:1').messages.at(-1)).toEqual(own)
      expect(view('room:1').outgoing).toEqual([])
    }
  })

  test('privately: the message is made from the ack alone', async () => {
    const { send, ack, receive, view, socket } = await sending()
    const clientId = await send('dm:3:7')
    expect(socket().sent.at(-1)).toEqual({ op: Op.Direct, toUserId: 7, msg: 'hello', clientId })
    await receive(ack('dm:3:7', 3, clientId))
    expect(view('dm:3:7').messages.at(-1)).toMatchObject({ seq: 3, id: '77', msg: 'hello', fromUserId: me.id, toUserId: 7, traceId: 'f'.repeat(32) })
    expect(view('dm:3:7').outgoing).toEqual([])
    expect(view('dm:3:7').unread).toBe(0)
  })

  test('an ack for what the store has brought already leaves one message', async () => {
    const { send, ack, receive, rest, seqs, view } = await sending()
    const clientId = await send('room:1')
    rest.messages.push(roomMessage(6, { fromUserId: me.id }))
    await receive({ op: Op.Pong, heads: { 'room:1': 6 } })
    expect(view('room:1').outgoing.length).toBe(1)
    await receive(ack('room:1', 6, clientId))
    expect(seqs('room:1')).toEqual([1, 2, 3, 4, 5, 6])
    expect(view('room:1').outgoing).toEqual([])
  })

  test('an ack beyond a hole keeps the bubble until the hole is filled', async () => {
    const { send, ack, receive, rest, seqs, view } = await sending()
    const clientId = await send('room:1')
    await receive(ack('room:1', 7, clientId))
    expect(view('room:1').outgoing[0]!.state).toBe('sent')
    rest.messages.push(roomMessage(6), roomMessage(7, { clientId, fromUserId: me.id }))
    await vi.advanceTimersByTimeAsync(5000)
    expect(seqs('room:1')).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(view('room:1').outgoing).toEqual([])
  })

  test('without an ack: sent again after reconnecting, with the same clientId, in order', async () => {
    const { client, send, reconnect, socket, ack, receive, view } = await sending()
    const first = await send('room:1')
    const second = await send('room:1')
    await reconnect()
    expect(socket().of(Op.Room).map((f) => f['clientId'])).toEqual([first, second])
    await receive(ack('room:1', 6, first))
    await reconnect()
    expect(socket().of(Op.Room).map((f) => f['clientId'])).toEqual([second])
    expect(client.state.conversations.get('room:1')!.messages.at(-1)!.msg).toBe('hello')
    expect(view('room:1').outgoing.map((o) => o.clientId)).toEqual([second])
  })

  test('written while disconnected: sent once connected', async () => {
    const { client, socket, view } = await sending()
    socket().hangUp(1006)
    client.send('room:1', 'later')
    await settle()
    expect(view('room:1').outgoing[0]!.state).toBe('sending')
    await vi.advanceTimersByTimeAsync(1000)
    socket().accept()
    expect(socket().of(Op.Room).map((f) => f['msg'])).toEqual(['later'])
  })

  test('an ack that does not come shows as failed', async () => {
    const { send, view, socket, receive } = await sending()
    await send('room:1')
    await vi.advanceTimersByTimeAsync(ackMs - 1)
    await receive({ op: Op.Pong })
    expect(view('room:1').outgoing[0]!.state).toBe('sending')
    await vi.advanceTimersByTimeAsync(1)
    expect(view('room:1').outgoing[0]).toMatchObject({ state: 'failed', code: 'unconfirmed' })
    expect(socket().of(Op.Room).length).toBe(1)
  })

  test('an error finds its message by clientId; a retry keeps it', async () => {
    const { client, send, receive, view, socket } = await sending()
    const a = await send('room:1')
    const b = await send('room:1')
    await receive({ op: Op.Error, code: 'rate_limited', message: 'slow down', clientId: a, retryAfterMs: 800 })
    expect(view('room:1').outgoing.map((o) => [o.clientId, o.state, o.code])).toEqual([
      [a, 'failed', 'rate_limited'],
      [b, 'sending', ''],
    ])
    expect(client.state.notice).toBeNull()
    client.retry(a)
    expect(socket().sent.at(-1)).toMatchObject({ op: Op.Room, clientId: a })
  })

  test('what was refused for good is not sent again by itself', async () => {
    const { send, receive, reconnect, socket, view } = await sending()
    const clientId = await send('room:1')
    await receive({ op: Op.Error, code: 'forbidden', message: 'not a member', clientId })
    await reconnect()
    expect(socket().of(Op.Room)).toEqual([])
    expect(view('room:1').outgoing[0]!.state).toBe('failed')
  })
})

describe('unread', () => {
  test('counts messages of others, once, and what another device read', async () => {
    const { receive, view } = await connected()
    expect(view('room:1').unread).toBe(2)
    await receive(roomMessage(6), roomMessage(7, { fromUserId: me.id }))
    expect(view('room:1').unread).toBe(3)
    await receive({ op: Op.Read, conversation: 'room:1', seq: 7 })
    expect(view('room:1').unread).toBe(0)
    await receive({ op: Op.Read, conversation: 'room:1', seq: 4 }, roomMessage(8))
    expect(view('room:1')).toMatchObject({ unread: 1, readSeq: 7 })
  })

  test('seen marks the last message read, gathered', async () => {
    const { client, receive, view, socket } = await connected()
    client.seen('room:1')
    await receive(roomMessage(6))
    client.seen('room:1')
    await vi.advanceTimersByTimeAsync(1000)
    expect(socket().of(Op.Read)).toEqual([{ op: Op.Read, conversation: 'room:1', seq: 6 }])
    expect(view('room:1').unread).toBe(0)
  })

  test('a mark set while disconnected is sent after', async () => {
    const { client, reconnect, socket } = await connected()
    socket().hangUp(1006)
    client.seen('room:1')
    await reconnect()
    expect(socket().of(Op.Read)).toEqual([{ op: Op.Read, conversation: 'room:1', seq: 5 }])
  })

  test('a conversation that turns up in the middle is counted by the inbox', async () => {
    const { rest, receive, view } = await connected()
    rest.entries.push({ conversation: 'dm:3:7', lastSeq: 9, readSeq: 4, unread: 5, last: directMessage(9) })
    await receive(directMessage(9))
    expect(view('dm:3:7')).toMatchObject({ unread: 5, title: 'bob' })
  })
})

test('who is online: names are a sample, the count is the truth', async () => {
  const { client, receive } = await connected()
  await receive({ op: Op.RoomInfo, count: 900, roomId: 1, roomUserInfo: { '7': 'bob', '3': 'ada' } })
  expect(client.state.online.get(1)).toEqual({ count: 900, users: [{ id: 3, name: 'ada' }, { id: 7, name: 'bob' }] })
  await receive({ op: Op.Count, count: 901, roomId: 1 })
  expect(client.state.online.get(1)!.count).toBe(901)
  expect(client.state.online.get(1)!.users.length).toBe(2)
})

test('who is online: what is pushed wins over an older answer', async () => {
  const { client, receive, rest } = await connected()
  let answer = () => {}
  rest.online = () => new Promise((resolve) => (answer = () => resolve({ count: 1, users: [] })))
  client.openRoom(lobby)
  await receive({ op: Op.Count, count: 2, roomId: 1 })
  answer()
  await settle()
  expect(client.state.online.get(1)!.count).toBe(2)
})

test('typing is shown for a while, ends with the message, and is sent sparingly', async () => {
  const { client, receive, view, socket } = await connected()
  await receive({ op: Op.Typing, conversation: 'room:1', fromUserId: 7, fromUserName: 'bob' })
  expect(view('room:1').typing).toEqual(['bob'])
  await receive(roomMessage(6))
  expect(view('room:1').typing).toEqual([])
  await receive({ op: Op.Typing, conversation: 'room:1', fromUserId: 7, fromUserName: 'bob' })
  await vi.advanceTimersByTimeAsync(6000)
  expect(view('room:1').typing).toEqual([])
  for (let i = 0; i < 10; i++) client.typing('room:1')
  expect(socket().of(Op.Typing)).toEqual([{ op: Op.Typing, conversation: 'room:1' }])
})

test('a session that REST refuses is over', async () => {
  const { client, ends, rest, socket } = await connected()
  rest.before = async () => {
    throw new ApiError('unauthenticated', 'sign in again')
  }
  client.openRoom(lobby)
  await settle()
  expect(ends).toEqual(['unauthenticated'])
  expect(socket().closed).toBe(true)
})

test('a socket that is refused asks REST whether the session is over', async () => {
  const { ends, rest, socket, sockets } = await connected()
  socket().hangUp(1008)
  await vi.advanceTimersByTimeAsync(1000)
  expect(rest.calls).toContain('checkSession')
  expect([ends, sockets.length]).toEqual([[], 2])
  rest.refusal = new ApiError('unauthenticated', 'sign in again')
  socket().hangUp(1008)
  await vi.advanceTimersByTimeAsync(60_000)
  expect([ends, sockets.length]).toEqual([['unauthenticated'], 2])
})
