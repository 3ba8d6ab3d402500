import type { ReactNode } from 'react'

function Icon({ children }: { children: ReactNode }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" width="20" height="20" fill="none" stroke="currentColor" strokeWidth="2" strokeLinecap="round" strokeLinejoin="round" aria-hidden="true">
      {children}
    </svg>
  )
}

export const Plus = () => <Icon><path d="M12 5v14M5 12h14" /></Icon>
export const Search = () => <Icon><circle cx="11" cy="11" r="6.5" /><path d="m16 16 4 4" /></Icon>
export const Back = () => <Icon><path d="M15 5l-7 7 7 7" /></Icon>
export const People = () => <Icon><circle cx="9" cy="8.5" r="3.5" /><path d="M2.5 20c.6-3.600 3.200-5.5 6.5-5.500s5.900 1.900 6.5 5.500M15.5 5.300a3.5 3.5 0 0 1 0 6.400M18 14.900c1.900.8 3.100 2.5 3.5 5.100" /></Icon>
export const Send = () => <Icon><path d="M4 12 20 4l-5 16-3.5-6.500z" /><path d="M11.5 13.5 20 4" /></Icon>
export const Lock = () => <Icon><rect x="5" y="11" width="14" height="9" rx="2" /><path d="M8 11V8a4 4 0 0 1 8 0v3" /></Icon>
export const Hash = () => <Icon><path d="M9.5 4 7.5 20M16.5 4l-2 16M4.5 9h16M3.5 15h16" /></Icon>
export const Copy = () => <Icon><rect x="9" y="9" width="11" height="11" rx="2" /><path d="M5 15V6a2 2 0 0 1 2-2h8" /></Icon>
export const Check = () => <Icon><path d="m5 12.5 4.5 4.500L19 7.5" /></Icon>
export const Close = () => <Icon><path d="M6 6l12 12M18 6 6 18" /></Icon>
export const Exit = () => <Icon><path d="M14 4H7a2 2 0 0 0-2 2v12a2 2 0 0 0 2 2h7M10 12h11M17.5 8.5 21 12l-3.5 3.5" /></Icon>
export const Down = () => <Icon><path d="M12 5v14M6 13l6 6 6-6" /></Icon>

export const Logo = () => (
  <svg className="logo" viewBox="0 0 32 32" width="32" height="32" aria-hidden="true">
    <rect width="32" height="32" rx="9" className="logo-back" />
    <path d="M8 10.500A2.5 2.5 0 0 1 10.5 8h11a2.5 2.5 0 0 1 2.5 2.500v7a2.5 2.5 0 0 1-2.5 2.500H15l-4.300 3.700c-.4.3-.9 0-.9-.5V20A2 2 0 0 1 8 18z" className="logo-front" />
    <circle cx="13" cy="14" r="1.5" className="logo-back" />
    <circle cx="19" cy="14" r="1.5" className="logo-back" />
  </svg>
)
