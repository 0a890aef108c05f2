package main

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// How watches are compared although servers batch and schedule them as they like:
// an oracle watcher on everything gives the history, from it follows how many events each watcher is owed, and a drain
// waits until both sides have delivered that many before it compares the sequences, event by event.
// Catch-up of a watcher from an old revision happens in the background (etcd: every 100 ms), and a compaction meanwhile
// would cancel it on one side only; hence a drain before every compaction and every cancel.

const (
	watchTimeout = 30 * time.Second
	// A watcher from an old revision without one matching event catches up invisibly; etcd's rhythm is 100 ms.
	invisibleCatchUp = 400 * time.Millisecond
)

// received is what one side delivered to one watcher since the last drain.
type received struct {
	events      []*mvccpb.Event
	compactions []*pb.WatchResponse
}

// sideStream is one Watch stream to one server, with its receiving goroutine.
type sideStream struct {
	name    string
	cancel  context.CancelFunc
	stream  pb.Watch_WatchClient
	control chan *pb.WatchResponse

	mu        sync.Mutex
	watchers  map[int64]*received
	progress  []*pb.WatchResponse
	lastRev   int64
	oddities  []string
	streamErr error
}

func openStream(s *side) (*sideStream, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := s.watch.Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	ss := &sideStream{name: s.name, cancel: cancel, stream: stream, control: make(chan *pb.WatchResponse, 256), watchers: map[int64]*received{}}
	go ss.receive()
	return ss, nil
}

func (ss *sideStream) receive() {
	for {
		wr, err := ss.stream.Recv()
		ss.mu.Lock()
		if err != nil {
			ss.streamErr = err
			ss.mu.Unlock()
			return
		}
		ss.accept(wr)
		ss.mu.Unlock()
	}
}

// accept runs under mu.
func (ss *sideStream) accept(wr *pb.WatchResponse) {
	switch {
	case wr.Created || (wr.Canceled && wr.CompactRevision == 0):
		if wr.Created && !wr.Canceled {
			ss.watchers[wr.WatchId] = &received{}
		}
		if len(wr.Events) > 0 {
			ss.oddities = append(ss.oddities, fmt.Sprintf("events on a control response of watch %d", wr.WatchId))
		}
		ss.control <- wr
	case wr.CompactRevision != 0:
		if r := ss.known(wr.WatchId); r != nil {
			r.compactions = append(r.compactions, wr)
		}
	case len(wr.Events) == 0 && wr.WatchId == -1:
		ss.progress = append(ss.progress, wr)
	case len(wr.Events) == 0:
		// A periodic progress notification (every 10 minutes): its moment is the server's own.
	default:
		if r := ss.known(wr.WatchId); r != nil {
			r.events = append(r.events, wr.Events...)
		}
		last := wr.Events[len(wr.Events)-1].Kv.ModRevision
		if wr.Header.GetRevision() < last {
			ss.oddities = append(ss.oddities, fmt.Sprintf("watch %d: header revision %d below its event's %d", wr.WatchId, wr.Header.GetRevision(), last))
		}
		ss.lastRev = max(ss.lastRev, last)
	}
}

func (ss *sideStream) known(id int64) *received {
	r := ss.watchers[id]
	if r == nil {
		ss.oddities = append(ss.oddities, fmt.Sprintf("response for watch %d that was never announced", id))
	}
	return r
}

func (ss *sideStream) nextControl() (*pb.WatchResponse, error) {
	select {
	case wr := <-ss.control:
		return wr, nil
	case <-time.After(watchTimeout):
		ss.mu.Lock()
		defer ss.mu.Unlock()
		return nil, fmt.Errorf("%s: no control response within %v (stream error: %v)", ss.name, watchTimeout, ss.streamErr)
	}
}

// watcher is the model of one live watcher, the same on both sides.
type watcher struct {
	create    *pb.WatchCreateRequest
	key, end  []byte
	fromKey   bool
	firstRev  int64
	compacted bool // the server cancels it for compaction as soon as it looks
	reported  bool // and has done so
	expected  int
	createdAt time.Time
	// silent: it catches up, and nothing shows when it has.
	silent bool
}

type pairStream struct {
	side          [2]*sideStream
	watchers      map[int64]*watcher
	progressSends [2]int
}

// event is what the oracle remembers.
type event struct {
	key []byte
	rev int64
	put bool
}

type watchStats struct {
	events, watchers, compacted, drains int
}

func (d *differ) openPair() (*pairStream, error) {
	p := &pairStream{watchers: map[int64]*watcher{}}
	for i, s := range d.sides {
		ss, err := openStream(s)
		if err != nil {
			return nil, err
		}
		p.side[i] = ss
	}
	return p, nil
}

func (p *pairStream) send(r *pb.WatchRequest) error {
	for _, ss := range p.side {
		if err := ss.stream.Send(r); err != nil {
			return fmt.Errorf("%s: watch stream broke: %w", ss.name, err)
		}
	}
	return nil
}

// control sends r and compares the control responses that both sides owe for it.
func (d *differ) control(p *pairStream, kind string, r *pb.WatchRequest) (*pb.WatchResponse, error) {
	if err := p.send(r); err != nil {
		return nil, err
	}
	var got [2]*pb.WatchResponse
	for i, ss := range p.side {
		wr, err := ss.nextControl()
		if err != nil {
			return nil, fmt.Errorf("%s\n--- request\n%s\n%w", kind, show(r), err)
		}
		got[i] = wr
	}
	req := &request{kind: kind, msg: r}
	return got[0], d.compareAnswers(req, answer{msg: got[0]}, answer{msg: got[1]})
}

func (d *differ) createWatcher(p *pairStream, c *pb.WatchCreateRequest) error {
	wr, err := d.control(p, "watch-create", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}})
	if err != nil {
		return err
	}
	d.count("watch-create", wr.CancelReason)
	if wr.Canceled {
		return nil
	}
	w := &watcher{create: c, key: c.Key, end: c.RangeEnd, createdAt: time.Now()}
	if len(w.key) == 0 {
		w.key = []byte{0}
	}
	if len(w.end) == 1 && w.end[0] == 0 {
		w.fromKey = true
	}
	w.firstRev = c.StartRevision
	switch {
	case c.StartRevision == 0:
		w.firstRev = d.rev + 1
	case c.StartRevision < d.compactRev:
		w.compacted = true
	case c.StartRevision <= d.rev:
		for _, e := range d.history {
			w.owe(e)
		}
		w.silent = w.expected == 0
	}
	p.watchers[wr.WatchId] = w
	d.watchStats.watchers++
	return nil
}

func (w *watcher) covers(key []byte) bool {
	switch {
	case w.fromKey:
		return bytes.Compare(key, w.key) >= 0
	case len(w.end) == 0:
		return bytes.Equal(key, w.key)
	default:
		return bytes.Compare(key, w.key) >= 0 && bytes.Compare(key, w.end) < 0
	}
}

// owe counts e when this watcher has to deliver it.
func (w *watcher) owe(e event) {
	if w.compacted || e.rev < w.firstRev || !w.covers(e.key) {
		return
	}
	for _, f := range w.create.Filters {
		if (f == pb.WatchCreateRequest_NOPUT && e.put) || (f == pb.WatchCreateRequest_NODELETE && !e.put) {
			return
		}
	}
	w.expected++
}

// drain waits until everything owed has come on both sides, then compares it.
func (d *differ) drain() error {
	d.watchStats.drains++
	deadline := time.Now().Add(watchTimeout)
	if err := d.drainOracle(deadline); err != nil {
		return err
	}
	for _, p := range d.streams {
		for id, w := range p.watchers {
			for _, ss := range p.side {
				if err := d.awaitWatcher(ss, id, w, deadline); err != nil {
					return err
				}
			}
		}
	}
	for _, p := range d.streams {
		if err := d.comparePair(p); err != nil {
			return err
		}
	}
	return nil
}

// awaitSilent gives watchers without a sign of life the time to catch up: a compaction must not meet them halfway.
func (d *differ) awaitSilent() {
	for _, p := range d.streams {
		for _, w := range p.watchers {
			if w.silent {
				time.Sleep(time.Until(w.createdAt.Add(invisibleCatchUp)))
				w.silent = false
			}
		}
	}
}

// drainOracle brings the history up to date and compares the full event sequence.
func (d *differ) drainOracle(deadline time.Time) error {
	for _, ss := range d.oracle.side {
		for {
			ss.mu.Lock()
			last, err := ss.lastRev, ss.streamErr
			ss.mu.Unlock()
			if last >= d.rev {
				break
			}
			if err != nil || time.Now().After(deadline) {
				return fmt.Errorf("%s: a watcher on every key saw revision %d, the store is at %d (stream error: %v)", ss.name, last, d.rev, err)
			}
			time.Sleep(200 * time.Microsecond)
		}
	}
	a := d.oracle.side[0]
	a.mu.Lock()
	events := a.watchers[d.oracleID].events
	a.mu.Unlock()
	w := d.oracle.watchers[d.oracleID]
	for _, e := range events {
		e := event{key: e.Kv.Key, rev: e.Kv.ModRevision, put: e.Type == mvccpb.Event_PUT}
		d.history = append(d.history, e)
		w.expected++
		for _, p := range d.streams {
			for _, other := range p.watchers {
				// What was already history when a watcher from an old revision came was counted at its creation.
				other.owe(e)
			}
		}
	}
	return d.comparePair(d.oracle)
}

func (d *differ) awaitWatcher(ss *sideStream, id int64, w *watcher, deadline time.Time) error {
	for {
		ss.mu.Lock()
		r := ss.watchers[id]
		have, cancelled, err := len(r.events), len(r.compactions), ss.streamErr
		ss.mu.Unlock()
		if have >= w.expected && (!w.compacted || w.reported || cancelled > 0) {
			return nil
		}
		if err != nil || time.Now().After(deadline) {
			return fmt.Errorf("%s: watch %d delivered %d of %d events, compaction cancel %d (owed: %v), stream error %v\n--- created by\n%s",
				ss.name, id, have, w.expected, cancelled, w.compacted && !w.reported, err, show(w.create))
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// comparePair compares all that the two streams delivered since the last time, and forgets it.
func (d *differ) comparePair(p *pairStream) error {
	for _, ss := range p.side {
		ss.mu.Lock()
		defer ss.mu.Unlock()
	}
	for _, ss := range p.side {
		if len(ss.oddities) > 0 {
			return fmt.Errorf("%s: %v", ss.name, ss.oddities)
		}
		if ss.streamErr != nil {
			return fmt.Errorf("%s: watch stream ended: %w", ss.name, ss.streamErr)
		}
		select {
		case wr := <-ss.control:
			return fmt.Errorf("%s: control response that nobody asked for\n%s", ss.name, show(wr))
		default:
		}
	}
	for i, ss := range p.side {
		if len(ss.progress) > p.progressSends[i] {
			return fmt.Errorf("%s: %d progress answers, %d were due\n%s", ss.name, len(ss.progress), p.progressSends[i], show(ss.progress[len(ss.progress)-1]))
		}
	}
	for id, w := range p.watchers {
		if err := d.compareWatcher(id, w, p.side[0].watchers[id], p.side[1].watchers[id]); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) compareWatcher(id int64, w *watcher, a, b *received) error {
	if len(a.events) != w.expected || len(b.events) != w.expected {
		return fmt.Errorf("watch %d: %d events owed, A delivered %d, B %d\n--- created by\n%s--- A\n%s--- B\n%s",
			id, w.expected, len(a.events), len(b.events), show(w.create), showEvents(a.events), showEvents(b.events))
	}
	for i := range a.events {
		if !proto.Equal(a.events[i], b.events[i]) {
			return fmt.Errorf("watch %d: event %d differs\n--- created by\n%s--- A\n%s--- B\n%s",
				id, i, show(w.create), show(a.events[i]), show(b.events[i]))
		}
	}
	d.watchStats.events += len(a.events)
	w.expected = 0
	a.events, b.events = nil, nil
	return d.compareCompactions(id, w, a, b)
}

func (d *differ) compareCompactions(id int64, w *watcher, a, b *received) error {
	due := 0
	if w.compacted && !w.reported {
		due = 1
	}
	if len(a.compactions) != due || len(b.compactions) != due {
		return fmt.Errorf("watch %d: %d compaction cancels owed, A sent %d, B %d\n--- created by\n%s", id, due, len(a.compactions), len(b.compactions), show(w.create))
	}
	if due == 0 {
		return nil
	}
	w.reported = true
	d.watchStats.compacted++
	req := &request{kind: "watch-compacted", msg: w.create}
	err := d.compareAnswers(req, answer{msg: a.compactions[0]}, answer{msg: b.compactions[0]})
	a.compactions, b.compactions = nil, nil
	return err
}

// requestProgress asks on one stream. It is answered only when every watcher of the stream has caught up.
func (d *differ) requestProgress(p *pairStream) error {
	if err := d.drain(); err != nil {
		return err
	}
	due := len(p.watchers) > 0
	for _, w := range p.watchers {
		if w.compacted || w.create.StartRevision > d.rev {
			due = false
		}
	}
	r := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	if !due {
		d.count("watch-progress", "no answer is due")
		return p.send(r)
	}
	d.count("watch-progress", "")
	deadline := time.Now().Add(watchTimeout)
	for i, ss := range p.side {
		before := ss.progressCount()
		for ss.progressCount() == before {
			if time.Now().After(deadline) {
				return fmt.Errorf("%s: no answer to a progress request although all watchers have caught up", ss.name)
			}
			if err := ss.stream.Send(r); err != nil {
				return err
			}
			p.progressSends[i]++
			for wait := 0; wait < 100 && ss.progressCount() == before; wait++ {
				time.Sleep(2 * time.Millisecond)
			}
		}
		ss.mu.Lock()
		got := ss.progress[len(ss.progress)-1]
		ss.mu.Unlock()
		if got.Header.GetRevision() != d.rev || got.WatchId != -1 {
			return fmt.Errorf("%s: progress answer at revision %d\n%s", ss.name, d.rev, show(got))
		}
	}
	return nil
}

func (ss *sideStream) progressCount() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return len(ss.progress)
}

func showEvents(events []*mvccpb.Event) string {
	s := ""
	for i, e := range events {
		if i == 40 {
			return s + fmt.Sprintf("  ... (%d events)\n", len(events))
		}
		s += fmt.Sprintf("  %s %.60q mod=%d create=%d version=%d\n", e.Type, e.Kv.Key, e.Kv.ModRevision, e.Kv.CreateRevision, e.Kv.Version)
	}
	return s
}
