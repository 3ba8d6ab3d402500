import { afterEach, describe, expect, test, vi } from 'vitest'
import { Rest, type Room } from './rest'

afterEach(() => vi.unstubAllGlobals())

/** A server with that many rooms, which pages through them as GET /v1/rooms does. Answers the queries that it was asked. */
function serveRooms(count: number): URLSearchParams[] {
  const all = Array.from({ length: count }, (_, i): Room => ({ id: 3 * i + 1, name: `room ${i}`, private: false, member: false }))
  const asked: URLSearchParams[] = []
  vi.stubGlobal('fetch', async (url: string) => {
    const { pathname, searchParams } = new URL(url)
    if (pathname !== '/v1/rooms') throw new Error(`asked for ${pathname}`)
    asked.push(searchParams)
    const following = all.filter((r) => r.id > Number(searchParams.get('after')) && r.name.includes(searchParams.get('query') ?? ''))
    const limit = Number(searchParams.get('limit'))
    return Response.json({ rooms: following.slice(0, limit), more: following.length > limit })
  })
  return asked
}

const names = (rooms: Room[]) => rooms.map((r) => r.name)
const roomsTo = (count: number) => Array.from({ length: count }, (_, i) => `room ${i}`)

describe('rooms', () => {
  test('those beyond the first page are listed, each once and in order', async () => {
    const asked = serveRooms(450)
    expect(names(await new Rest('http://x').rooms(''))).toEqual(roomsTo(450))
    expect(asked.map((q) => q.get('after'))).toEqual(['0', '598', '1198'])
  })

  test('a last page that is full is not followed by an empty one', async () => {
    const asked = serveRooms(400)
    expect(names(await new Rest('http://x').rooms(''))).toEqual(roomsTo(400))
    expect(asked).toHaveLength(2)
  })

  test('a search goes through its pages too', async () => {
    const asked = serveRooms(2050)
    expect(names(await new Rest('http://x').rooms('room 1'))).toEqual(roomsTo(2050).filter((name) => name.startsWith('room 1')))
    expect(asked.map((q) => q.get('query'))).toContain('room 1')
    expect(asked.length).toBeGreaterThan(1)
  })

  test('a server that has always more is not asked for ever', async () => {
    const asked = serveRooms(6000)
    expect(await new Rest('http://x').rooms('')).toHaveLength(5000)
    expect(asked).toHaveLength(25)
  })
})
