package main

import (
	"errors"
	"os"
	"sync"
	"time"
)

// runMixed offers puts and gets at fixed rates, half of the connections each, whatever the server's answers do: a latency counts from when
// the request was due, so that a server which stands still is charged for all that waited (no coordinated omission). Keys of
// gets must be loaded.
func runMixed(o options) (result, error) {
	run := &unaryRun{}
	workers := make([]*unary, o.clients)
	conns := make([]*connection, o.clients)
	intervals := make([]time.Duration, o.clients)
	for i := range workers {
		one, rate, share := o, o.rate, (o.clients+1)/2
		one.mode = "put"
		if i%2 == 1 {
			one.mode, rate, share = "get", o.getRate, o.clients/2
		}
		if rate > 0 {
			intervals[i] = time.Duration(float64(time.Second) * float64(share) / float64(rate))
		}
		workers[i] = newUnary(one, run, i)
		workers[i].paced = true
		c, err := dial(address(o), o.tls)
		if err != nil {
			return result{}, err
		}
		conns[i] = c
	}
	var wg sync.WaitGroup
	started, cpu := time.Now(), cpuSeconds(o.pid)
	for i := range workers {
		if intervals[i] == 0 {
			continue
		}
		// Spread over the interval, so that the connections do not send in step.
		first := started.Add(intervals[i] * time.Duration(i) / time.Duration(o.clients))
		wg.Go(func() { workers[i].pace(conns[i], first, intervals[i]) })
	}
	time.Sleep(o.warmup)
	run.measure.Store(true)
	time.Sleep(o.duration)
	run.stopped.Store(true)
	wg.Wait()
	var puts, gets histogram
	r := result{Seconds: round(time.Since(started).Seconds())}
	for i, w := range workers {
		if i%2 == 0 {
			puts.merge(&w.hist)
		} else {
			gets.merge(&w.hist)
		}
		r.Errors += w.errors
		if w.first != nil && r.Error == "" {
			r.Error = w.first.Error()
		}
	}
	r.Requests = puts.total + gets.total
	r.PutP50, r.PutP99, r.PutP999, r.PutMax = puts.ms(0.5), puts.ms(0.99), puts.ms(0.999), round(float64(puts.max)/1e6)
	r.GetP50, r.GetP99, r.GetP999, r.GetMax = gets.ms(0.5), gets.ms(0.99), gets.ms(0.999), round(float64(gets.max)/1e6)
	r.server(o.pid, cpu, r.Requests)
	return r, nil
}

// pace sends a request whenever one is due, and reads answers in between. What is in flight at the end is waited for, and counts.
func (u *unary) pace(c *connection, due time.Time, interval time.Duration) {
	const patience = 30 * time.Second
	var stoppedAt time.Time
	for {
		now := time.Now()
		if u.run.stopped.Load() {
			if stoppedAt.IsZero() {
				stoppedAt = now
			}
			if len(c.streams) == 0 {
				return
			}
			if now.Sub(stoppedAt) > patience {
				u.fail(errors.New("calls without an answer 30 s after the end"))
				return
			}
		} else {
			for !due.After(now) && u.send(c, due) {
				due = due.Add(interval)
			}
		}
		wake := due
		if !wake.After(now) {
			wake = now.Add(time.Millisecond)
		}
		err := errors.Join(c.flush(), c.conn.SetReadDeadline(wake))
		if err == nil {
			err = c.turn(u)
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			u.fail(err)
			return
		}
	}
}
