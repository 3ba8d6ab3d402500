/** Copies the text; false if the browser refuses. Works on pages loaded by plain http, which have no clipboard API. */
export function copy(text: string): boolean {
  const area = document.createElement('textarea')
  area.value = text
  area.className = 'hidden'
  document.body.append(area)
  area.select()
  const done = document.execCommand('copy')
  area.remove()
  return done
}
