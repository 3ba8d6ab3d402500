package connect

// pusher sends what goes to the same receivers to each of them by one write. It belongs to one goroutine.
type pusher struct {
	to []*channel

	work     []work
	together frame // the frames of work, one after the other; empty until a transport has a receiver
	glued    frame // the memory of together, where that is not the only frame
	counts   [][outcomes]int

	taken struct{ writes, frames, bytes int } // by sockets, since it was counted
}

// count has the metrics know what sockets took.
func (p *pusher) count(m *fanOutMetrics) {
	m.writes.Add(float64(p.taken.writes))
	m.frames.Add(float64(p.taken.frames))
	m.bytes.Add(float64(p.taken.bytes))
	p.taken.writes, p.taken.frames, p.taken.bytes = 0, 0, 0
}

// push sends the work, which has the same receivers throughout, to p.to, and adds what became of it to the counts of each
// delivery, and to sum if it is a message.
func (p *pusher) push(all []work, sum *[outcomes]int) {
	p.work, p.together = all, frame{}
	p.counts = p.counts[:0]
	for range all {
		p.counts = append(p.counts, [outcomes]int{})
	}
	whole := 0 // receivers that took all of it
	for _, c := range p.to {
		if c.pushAll(p) {
			whole++
		}
	}
	for i := range all {
		d := all[i].delivery
		all[i].nobody = all[i].user != 0 && len(p.to) == 0
		p.counts[i][written] += whole
		for o, n := range p.counts[i] {
			if n > 0 {
				d.counts[o].Add(int32(n))
				if d.Seq > 0 {
					sum[o] += n
				}
			}
		}
	}
	p.work = nil
}

// bytes is all of the work as it goes over the transport.
func (p *pusher) bytes(t transport) []byte {
	switch {
	case len(p.together[t]) > 0:
	case len(p.work) == 1:
		p.together[t] = p.work[0].delivery.frame[t]
	default:
		p.glued[t] = p.glued[t][:0]
		for i := range p.work {
			p.glued[t] = append(p.glued[t], p.work[i].delivery.frame[t]...)
		}
		p.together[t] = p.glued[t]
	}
	return p.together[t]
}

// pushAll sends the work of p. It is true if the kernel took all of it; else what became of each part is counted.
func (c *channel) pushAll(p *pusher) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended || c.writing || c.replays != nil || c.withholdAll || p.excepts(c.number) {
		c.pushEach(p, 0)
		return false
	}
	all := p.bytes(c.transport)
	n, err := c.offer(all)
	switch {
	case err != nil:
		c.breakOff()
	case n == len(all):
		p.took(len(p.work), n)
		return true
	case n > 0:
		p.took(1, n) // and the rest with what waits
	}
	c.pushEach(p, n)
	return false
}

// pushEach is pushAll of one part after another, behind what the kernel has taken. It is called with mu held.
func (c *channel) pushEach(p *pusher, taken int) {
	for i := range p.work {
		d := p.work[i].delivery
		if c.number == d.except {
			continue
		}
		var o outcome
		switch f := d.frame[c.transport]; {
		case taken >= len(f) && taken > 0:
			o, taken = written, taken-len(f)
		case taken > 0:
			c.enqueueRest(f[taken:])
			o, taken = queued, 0
		default:
			o = c.pushOne(d)
		}
		p.counts[i][o]++
	}
}

func (p *pusher) took(frames, bytes int) {
	p.taken.writes++
	p.taken.frames += frames
	p.taken.bytes += bytes
}

func (p *pusher) excepts(number uint64) bool {
	for i := range p.work {
		if p.work[i].delivery.except == number {
			return true
		}
	}
	return false
}
