import { createContext } from 'react'

/** Where a trace is shown, with its id after a slash; empty if nowhere. */
export const TracesUrl = createContext('')
