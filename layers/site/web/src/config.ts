/** Where the page finds its servers. */
export interface Config {
  apiUrl: string
  websocketUrl: string
  /** Where a trace is shown, with its id after a slash; empty if nowhere. */
  tracesUrl: string
}

/** Reads /config.json. A URL that it leaves empty is the host of the page itself with the port it names. */
export async function loadConfig(): Promise<Config> {
  const response = await fetch('/config.json')
  if (!response.ok) throw new Error(`config.json: ${response.status}`)
  const c = (await response.json()) as { apiUrl: string; websocketUrl: string; apiPort: number; websocketPort: number; tracesUrl?: string }
  const { protocol, hostname } = window.location
  const secure = protocol === 'https:'
  return {
    apiUrl: c.apiUrl || `${protocol}//${hostname}:${c.apiPort}`,
    websocketUrl: c.websocketUrl || `${secure ? 'wss' : 'ws'}://${hostname}:${c.websocketPort}/ws`,
    tracesUrl: reachable(c.tracesUrl ?? '', hostname),
  }
}

/** Traces are shown on the server's own loopback: the URL, if that is where the page was loaded from, else nothing. */
export function reachable(tracesUrl: string, hostname: string): string {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname) ? tracesUrl : ''
}
