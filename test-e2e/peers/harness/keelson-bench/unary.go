package main

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// unary keeps -conns-streams calls in flight on one connection: as an answer comes, the next request of its slot leaves.
type unary struct {
	o       options
	run     *unaryRun
	keys    keyspace
	rng     uint64
	method  string
	filler  []byte
	head    []byte // request bytes before the key's own
	tail    []byte // and after
	hist    histogram
	errors  uint64
	first   error
	bytes   uint64
	kvs     uint64
	count   int64
	waiting []int // slots that the send window held back
	paced   bool  // requests leave when they are due, not when an answer came
	pages   []page
}

// page is where a listing stands, a slot each.
type page struct {
	next     []byte
	revision int64
}

// unaryRun is shared by all connections.
type unaryRun struct {
	sequence atomic.Uint64
	limit    uint64
	stopAt   time.Time
	measure  atomic.Bool
	stopped  atomic.Bool
}

func newUnary(o options, run *unaryRun, n int) *unary {
	u := &unary{o: o, run: run, keys: newKeyspace(o), rng: uint64(n)*0x9e3779b97f4a7c15 + 1}
	u.filler = make([]byte, 1<<16)
	for i := range u.filler {
		// Printable and incompressible enough.
		u.filler[i] = byte('!' + u.random()%90)
	}
	switch o.mode {
	case "put", "onekey":
		u.method = "/etcdserverpb.KV/Put"
		u.tail = protowire.AppendTag(nil, 2, protowire.BytesType)
		u.tail = protowire.AppendVarint(u.tail, uint64(o.valueSize))
	case "get":
		u.method = "/etcdserverpb.KV/Range"
		if o.serializable {
			u.tail = protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.VarintType), 1)
		}
	case "page":
		u.method = "/etcdserverpb.KV/Range"
		u.pages = make([]page, o.streams)
	}
	if o.method != "" {
		u.method = o.method
	}
	u.head = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.BytesType), uint64(o.keySize))
	return u
}

func (u *unary) random() uint64 {
	u.rng ^= u.rng << 13
	u.rng ^= u.rng >> 7
	u.rng ^= u.rng << 17
	return u.rng
}

// next sends the next request of a slot, or remembers the slot when the window is full. False: the run is over.
func (u *unary) next(c *connection, slot int) bool {
	if u.run.stopped.Load() {
		return false
	}
	if u.o.mode == "page" {
		return u.nextPage(c, slot)
	}
	size := len(u.head) + u.o.keySize + len(u.tail)
	if u.o.mode != "get" {
		size += u.o.valueSize
	}
	if !c.ready(size) {
		u.waiting = append(u.waiting, slot)
		return true
	}
	sequence := u.run.sequence.Add(1) - 1
	if u.run.limit > 0 && sequence >= u.run.limit {
		return false
	}
	u.put(c, slot, size, sequence)
	return true
}

// send sends a request that was due then; false when the connection takes none now.
func (u *unary) send(c *connection, due time.Time) bool {
	size := len(u.head) + u.o.keySize + len(u.tail)
	if u.o.mode != "get" {
		size += u.o.valueSize
	}
	if !c.ready(size) {
		return false
	}
	id := c.nextID
	u.put(c, 0, size, u.run.sequence.Add(1)-1)
	c.streams[id].sentAt = due
	return true
}

// put opens the call of a request for key number sequence.
func (u *unary) put(c *connection, slot, size int, sequence uint64) {
	b := c.open(u.method, slot, size, true)
	n := copy(b, u.head)
	u.keys.write(b[n:n+u.o.keySize], sequence)
	n += u.o.keySize
	n += copy(b[n:], u.tail)
	if u.o.mode != "get" {
		from := int(u.random() % uint64(len(u.filler)))
		for m := n; m < len(b); from = 0 {
			m += copy(b[m:], u.filler[from:])
		}
	}
}

func (u *unary) nextPage(c *connection, slot int) bool {
	r := &pb.RangeRequest{Key: u.pages[slot].next, RangeEnd: prefixEnd(u.o.prefix), Limit: int64(u.o.limit), Revision: u.pages[slot].revision, Serializable: u.o.serializable}
	if len(r.Key) == 0 || u.o.pageStart == "first" {
		r.Key, r.Revision = []byte(u.o.prefix), 0
	}
	if u.o.pageStart == "random" {
		r.Key, r.Revision = make([]byte, u.o.keySize), 0
		u.keys.write(r.Key, u.random())
	}
	body, err := proto.Marshal(r)
	if err != nil {
		panic(err)
	}
	if !c.ready(len(body)) {
		u.waiting = append(u.waiting, slot)
		return true
	}
	if u.run.sequence.Add(1) > u.run.limit && u.run.limit > 0 {
		return false
	}
	copy(c.open(u.method, slot, len(body), true), body)
	return true
}

func (u *unary) message(_ *connection, s *stream, message []byte) {
	if u.run.measure.Load() {
		u.bytes += uint64(len(message))
	}
	switch u.o.mode {
	case "page":
		var r pb.RangeResponse
		if err := proto.Unmarshal(message, &r); err != nil {
			u.fail(err)
			return
		}
		u.kvs += uint64(len(r.Kvs))
		u.count = max(u.count, r.Count)
		p := &u.pages[s.slot]
		if p.revision == 0 {
			p.revision = r.Header.Revision
		}
		if p.next = nil; r.More {
			p.next = append(r.Kvs[len(r.Kvs)-1].Key, 0)
		} else {
			p.revision = 0
		}
	case "get":
		// A header and a key: anything shorter did not find its key.
		if len(message) < u.o.keySize+u.o.valueSize {
			u.fail(fmt.Errorf("a get answered %d bytes: is the keyspace loaded?", len(message)))
		}
	}
}

func (u *unary) done(c *connection, s *stream, err error) {
	if err != nil {
		u.fail(err)
	} else if u.run.measure.Load() {
		u.hist.add(time.Since(s.sentAt))
	}
	if !u.paced {
		u.next(c, s.slot)
	}
}

// retry gives the slots that the send window held back another chance; those that it still holds stay.
func (u *unary) retry(c *connection) error {
	held := u.waiting
	u.waiting = nil
	for _, slot := range held {
		u.next(c, slot)
	}
	return c.flush()
}

func (u *unary) fail(err error) {
	u.errors++
	if u.first == nil {
		u.first = err
	}
}

// loop runs one connection until the run is over and its last call answered.
func (u *unary) loop(c *connection) {
	for slot := range u.o.streams {
		if !u.next(c, slot) {
			break
		}
	}
	if err := c.flush(); err != nil {
		u.fail(err)
		return
	}
	for len(c.streams) > 0 || len(u.waiting) > 0 {
		err := c.turn(u)
		if err == nil && len(u.waiting) > 0 {
			err = u.retry(c)
		}
		if err != nil {
			u.fail(fmt.Errorf("connection: %w (%d calls in flight)", err, len(c.streams)))
			return
		}
	}
}

func runUnary(o options) (result, error) {
	if o.mode == "onekey" {
		o.clients, o.streams = 1, 1
	}
	run := &unaryRun{limit: uint64(o.total)}
	workers := make([]*unary, o.clients)
	conns := make([]*connection, o.clients)
	for i := range workers {
		workers[i] = newUnary(o, run, i)
		c, err := dial(address(o), o.tls)
		if err != nil {
			return result{}, err
		}
		conns[i] = c
	}
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { workers[i].loop(conns[i]) })
	}
	time.Sleep(o.warmup)
	run.measure.Store(true)
	started, cpu := time.Now(), cpuSeconds(o.pid)
	if o.total == 0 {
		time.Sleep(o.duration)
		// The last calls drain unmeasured: the tail would dilute the throughput.
		run.measure.Store(false)
		run.stopped.Store(true)
	}
	stoppedAt := time.Since(started)
	cpuAtStop := cpuSeconds(o.pid)
	wg.Wait()
	var r result
	if o.total > 0 {
		stoppedAt, cpuAtStop = time.Since(started), cpuSeconds(o.pid)
	}
	r.Seconds = round(stoppedAt.Seconds())
	var all histogram
	for _, w := range workers {
		all.merge(&w.hist)
		r.Errors += w.errors
		if w.first != nil && r.Error == "" {
			r.Error = w.first.Error()
		}
		r.MBPerSec += float64(w.bytes) / 1e6
		r.Keys += w.kvs
		r.Count = max(r.Count, w.count)
	}
	r.latencies(&all)
	r.MBPerSec = round(r.MBPerSec / stoppedAt.Seconds())
	if r.Keys > 0 {
		r.KeysPerSec = round(float64(r.Keys) / stoppedAt.Seconds())
	}
	if o.pid != 0 {
		r.ServerCPU = round(cpuAtStop - cpu)
		r.ServerCPUEach = round((cpuAtStop - cpu) / float64(max(all.total, 1)) * 1e6)
	}
	if o.total > 0 && all.total+r.Errors < uint64(o.total) {
		fmt.Fprintf(os.Stderr, "keelson-bench: %d of %d requests were measured\n", all.total, o.total)
	}
	return r, nil
}
