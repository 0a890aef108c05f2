package main

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// connection is an HTTP/2 client for gRPC that does as little as it can: requests are templates with a stream id and
// a body patched in, all requests that one read made possible leave in one write, and a trailer block that was seen
// before is recognised by its bytes. grpc-go's client costs more CPU a call than the server that it measures.
// It is not a general client: bodies must fit the peer's frame size and initial window, both are checked.
//
// Frame layout (RFC 9113, 4.1): 0..2 length, 3 type, 4 flags, 5..8 stream id. gRPC message: 0 compressed, 1..4 length.
type connection struct {
	conn    net.Conn
	in      []byte
	inEnd   int
	out     []byte
	framer  *http2.Framer // writes only, into out
	headers map[string][]byte
	decoder *hpack.Decoder

	nextID     uint32
	sendWindow int
	peerWindow int
	peerFrame  int
	peerMax    uint32
	consumed   int

	streams map[uint32]*stream
	free    []*stream
	// A server header block cut into CONTINUATIONs.
	headerBuf    []byte
	headerStream uint32
	headerEnd    bool

	// The last trailer block that said grpc-status 0 and, being only indexed fields, leaves the table as it is.
	okBlock    []byte
	okValid    bool
	grpcStatus string
	grpcMsg    string

	goAway bool
}

const (
	recvWindow  = 1 << 30
	windowGrain = 1 << 24
	frameHeader = 9
)

// stream is one call. slot is the caller's number; the rest is the connection's.
type stream struct {
	id       uint32
	slot     int
	sentAt   time.Time
	partial  []byte // of a message that spans frames
	messages int
	consumed int
}

// handler is told what comes back. message is valid during the call only.
type handler interface {
	message(c *connection, s *stream, message []byte)
	// done: the call ended; err is nil for grpc-status 0.
	done(c *connection, s *stream, err error)
}

func dial(address string, useTLS bool) (*connection, error) {
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return nil, err
	}
	if useTLS {
		// The server's certificate is not what is measured.
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	}
	c := &connection{conn: conn, in: make([]byte, 256<<10), nextID: 1, sendWindow: 65535, peerWindow: 65535, peerFrame: 16384, peerMax: 1<<32 - 1,
		streams: map[uint32]*stream{}, headers: map[string][]byte{}}
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch f.Name {
		case "grpc-status":
			c.grpcStatus = f.Value
		case "grpc-message":
			c.grpcMsg = f.Value
		case ":status":
			if f.Value != "200" {
				c.grpcStatus, c.grpcMsg = "http "+f.Value, "HTTP status "+f.Value
			}
		}
	})
	c.framer = http2.NewFramer(writerFunc(func(p []byte) (int, error) {
		c.out = append(c.out, p...)
		return len(p), nil
	}), nil)
	c.out = append(c.out, http2.ClientPreface...)
	err = errors.Join(
		c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: recvWindow}, http2.Setting{ID: http2.SettingEnablePush, Val: 0}),
		c.framer.WriteWindowUpdate(0, recvWindow-65535))
	if err != nil {
		return nil, err
	}
	return c, c.flush()
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// block encodes the request headers once a method, without touching the dynamic table: the bytes are always the same.
func (c *connection) block(method string) []byte {
	if b := c.headers[method]; b != nil {
		return b
	}
	var buf bytes.Buffer
	e := hpack.NewEncoder(&buf)
	scheme := "http"
	if _, ok := c.conn.(*tls.Conn); ok {
		scheme = "https"
	}
	for _, f := range []hpack.HeaderField{{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: scheme}, {Name: ":path", Value: method},
		{Name: ":authority", Value: c.conn.RemoteAddr().String()}, {Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
		{Name: "user-agent", Value: "keelson-bench"}} {
		// Sensitive means "never indexed": the encoder then leaves the table alone.
		f.Sensitive = f.Name != ":method" && f.Name != ":scheme"
		_ = e.WriteField(f)
	}
	c.headers[method] = bytes.Clone(buf.Bytes())
	return c.headers[method]
}

// ready: a new call with a message of this size may be sent now; if not, ask again after the next turn.
func (c *connection) ready(size int) bool {
	return 5+size <= c.sendWindow && !c.goAway && uint32(len(c.streams)) < c.peerMax
}

// open starts a call with one message of size bytes, which the caller then writes into the returned slice.
// The caller has asked ready(size) before.
func (c *connection) open(method string, slot, size int, end bool) []byte {
	body := 5 + size
	if body > c.peerWindow || body > c.peerFrame {
		panic(fmt.Sprintf("keelson-bench: request of %d bytes does not fit the peer's window %d or frame %d", body, c.peerWindow, c.peerFrame))
	}
	id := c.nextID
	c.nextID += 2
	s := &stream{}
	if n := len(c.free); n > 0 {
		s, c.free = c.free[n-1], c.free[:n-1]
	}
	*s = stream{id: id, slot: slot, sentAt: time.Now(), partial: s.partial[:0]}
	c.streams[id] = s
	block := c.block(method)
	c.out = appendFrameHeader(c.out, len(block), http2.FrameHeaders, http2.FlagHeadersEndHeaders, id)
	c.out = append(c.out, block...)
	return c.data(id, size, end)
}

// data appends a DATA frame with one gRPC message of size bytes and returns the place for it.
func (c *connection) data(id uint32, size int, end bool) []byte {
	flags := http2.Flags(0)
	if end {
		flags = http2.FlagDataEndStream
	}
	c.sendWindow -= 5 + size
	c.out = appendFrameHeader(c.out, 5+size, http2.FrameData, flags, id)
	c.out = append(c.out, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(size))
	at := len(c.out)
	c.out = slices.Grow(c.out, size)[:at+size]
	return c.out[at:]
}

func appendFrameHeader(b []byte, length int, t http2.FrameType, flags http2.Flags, id uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(t), byte(flags))
	return binary.BigEndian.AppendUint32(b, id)
}

func (c *connection) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_, err := c.conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// turn reads once, hands every complete frame to h, and writes all that became ready meanwhile in one write.
func (c *connection) turn(h handler) error {
	if c.inEnd == len(c.in) {
		c.in = append(c.in, make([]byte, len(c.in))...)
	}
	n, err := c.conn.Read(c.in[c.inEnd:])
	if err != nil {
		return err
	}
	c.inEnd += n
	at := 0
	for c.inEnd-at >= frameHeader {
		length := int(c.in[at])<<16 | int(c.in[at+1])<<8 | int(c.in[at+2])
		if c.inEnd-at < frameHeader+length {
			break
		}
		id := binary.BigEndian.Uint32(c.in[at+5:]) & (1<<31 - 1)
		payload := c.in[at+frameHeader : at+frameHeader+length]
		if err := c.frame(h, http2.FrameType(c.in[at+3]), http2.Flags(c.in[at+4]), id, payload); err != nil {
			return err
		}
		at += frameHeader + length
	}
	copy(c.in, c.in[at:c.inEnd])
	c.inEnd -= at
	return c.flush()
}

func (c *connection) frame(h handler, t http2.FrameType, flags http2.Flags, id uint32, p []byte) error {
	switch t {
	case http2.FrameData:
		return c.onData(h, flags, id, p)
	case http2.FrameHeaders:
		if flags.Has(http2.FlagHeadersPadded) || flags.Has(http2.FlagHeadersPriority) {
			return errors.New("padded or prioritised HEADERS from the server")
		}
		c.headerStream, c.headerEnd = id, flags.Has(http2.FlagHeadersEndStream)
		if !flags.Has(http2.FlagHeadersEndHeaders) {
			c.headerBuf = append(c.headerBuf[:0], p...)
			return nil
		}
		return c.onHeaders(h, p)
	case http2.FrameContinuation:
		c.headerBuf = append(c.headerBuf, p...)
		if flags.Has(http2.FlagContinuationEndHeaders) {
			return c.onHeaders(h, c.headerBuf)
		}
	case http2.FrameSettings:
		return c.onSettings(flags, p)
	case http2.FrameWindowUpdate:
		if id == 0 {
			c.sendWindow += int(binary.BigEndian.Uint32(p))
		}
	case http2.FramePing:
		if !flags.Has(http2.FlagPingAck) {
			return c.framer.WritePing(true, [8]byte(p))
		}
	case http2.FrameRSTStream:
		c.finish(h, id, fmt.Errorf("RST_STREAM %v", http2.ErrCode(binary.BigEndian.Uint32(p))))
	case http2.FrameGoAway:
		c.goAway = true
		if code := http2.ErrCode(binary.BigEndian.Uint32(p[4:])); code != http2.ErrCodeNo {
			return fmt.Errorf("GOAWAY %v %s", code, p[8:])
		}
	}
	return nil
}

func (c *connection) onSettings(flags http2.Flags, p []byte) error {
	if flags.Has(http2.FlagSettingsAck) {
		return nil
	}
	for ; len(p) >= 6; p = p[6:] {
		v := binary.BigEndian.Uint32(p[2:])
		switch http2.SettingID(binary.BigEndian.Uint16(p)) {
		case http2.SettingInitialWindowSize:
			c.peerWindow = int(v)
		case http2.SettingMaxFrameSize:
			c.peerFrame = int(v)
		case http2.SettingMaxConcurrentStreams:
			c.peerMax = v
		}
	}
	return c.framer.WriteSettingsAck()
}

func (c *connection) onData(h handler, flags http2.Flags, id uint32, p []byte) error {
	if flags.Has(http2.FlagDataPadded) {
		return errors.New("padded DATA from the server")
	}
	// Windows are given back in large grains: one small frame for 16 MiB.
	if c.consumed += len(p); c.consumed >= windowGrain {
		if err := c.framer.WriteWindowUpdate(0, uint32(c.consumed)); err != nil {
			return err
		}
		c.consumed = 0
	}
	s := c.streams[id]
	if s == nil {
		return nil
	}
	if s.consumed += len(p); s.consumed >= windowGrain {
		if err := c.framer.WriteWindowUpdate(id, uint32(s.consumed)); err != nil {
			return err
		}
		s.consumed = 0
	}
	c.messages(h, s, p)
	if flags.Has(http2.FlagDataEndStream) {
		c.finish(h, id, errors.New("stream ended without trailers"))
	}
	return nil
}

// messages cuts p into gRPC messages; what is incomplete waits in s.partial.
func (c *connection) messages(h handler, s *stream, p []byte) {
	if len(s.partial) > 0 {
		s.partial = append(s.partial, p...)
		p = s.partial
	}
	for len(p) >= 5 {
		size := int(binary.BigEndian.Uint32(p[1:]))
		if len(p) < 5+size {
			break
		}
		s.messages++
		h.message(c, s, p[5:5+size])
		p = p[5+size:]
	}
	s.partial = append(s.partial[:0], p...)
}

func (c *connection) onHeaders(h handler, block []byte) error {
	id, end := c.headerStream, c.headerEnd
	if end && c.okValid && bytes.Equal(block, c.okBlock) {
		c.finish(h, id, nil)
		return nil
	}
	c.grpcStatus, c.grpcMsg = "", ""
	if _, err := c.decoder.Write(block); err != nil {
		return fmt.Errorf("HPACK: %w", err)
	}
	if err := c.decoder.Close(); err != nil {
		return fmt.Errorf("HPACK: %w", err)
	}
	indexed := onlyIndexed(block)
	if !indexed {
		// The table has moved: the same bytes may now mean something else.
		c.okValid = false
	}
	if !end {
		return nil
	}
	switch c.grpcStatus {
	case "0":
		if indexed {
			c.okBlock, c.okValid = append(c.okBlock[:0], block...), true
		}
		c.finish(h, id, nil)
	case "":
		c.finish(h, id, errors.New("trailers without grpc-status"))
	default:
		c.finish(h, id, fmt.Errorf("grpc-status %s: %s", c.grpcStatus, c.grpcMsg))
	}
	return nil
}

// onlyIndexed: every field is one byte "indexed" (RFC 7541, 6.1), which reads the table and never changes it.
func onlyIndexed(block []byte) bool {
	for _, b := range block {
		if b&0x80 == 0 || b == 0xff {
			return false
		}
	}
	return true
}

func (c *connection) finish(h handler, id uint32, err error) {
	s := c.streams[id]
	if s == nil {
		return
	}
	delete(c.streams, id)
	if err == nil && s.messages == 0 {
		err = errors.New("no message before the trailers")
	}
	h.done(c, s, err)
	c.free = append(c.free, s)
}
