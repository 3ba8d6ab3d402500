import { expect, test } from 'vitest'
import { reachable } from './config'

const url = 'http://127.0.0.1:9100/debug/traces'

test.each(['localhost', '127.0.0.1', '127.9.9.9', '[::1]'])('traces are shown to a page of %s', (hostname) => {
  expect(reachable(url, hostname)).toBe(url)
  expect(reachable('', hostname)).toBe('')
})

test.each(['chat.example', '192.0.2.1', '127.example', '127.0.0.1.example', 'localhost.example', '[::]', ''])('traces are not shown to a page of %s', (hostname) => {
  expect(reachable(url, hostname)).toBe('')
})
