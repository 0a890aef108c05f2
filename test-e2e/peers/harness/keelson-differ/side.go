package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const callTimeout = 20 * time.Second

// side is one of the two servers, reached by raw stubs: clientv3 retries, splits and rewrites.
type side struct {
	name      string
	conn      *grpc.ClientConn
	kv        pb.KVClient
	watch     pb.WatchClient
	lease     pb.LeaseClient
	maint     pb.MaintenanceClient
	cluster   pb.ClusterClient
	keepAlive pb.Lease_LeaseKeepAliveClient
}

func dial(name, url string) (*side, error) {
	target := strings.TrimPrefix(url, "http://")
	conn, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	s := &side{name: name, conn: conn, kv: pb.NewKVClient(conn), watch: pb.NewWatchClient(conn), lease: pb.NewLeaseClient(conn),
		maint: pb.NewMaintenanceClient(conn), cluster: pb.NewClusterClient(conn)}
	return s, nil
}

// request is one step: what is shown when it differs, and how it is sent.
type request struct {
	kind string
	msg  proto.Message
	// note says what msg cannot: raw bytes, the method name.
	note string
	send func(ctx context.Context, s *side) (proto.Message, error)
	// codeOnly: the message of the error is the protobuf runtime's own and changes with its build.
	codeOnly bool
}

// answer of one side. extra holds what has no place in the message (which chunk had a header).
type answer struct {
	msg   proto.Message
	err   error
	extra string
}

// streamed carries extra facts of a streaming answer out of request.send.
type streamed struct {
	proto.Message
	extra string
}

func (s *side) do(r *request) answer {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	msg, err := r.send(ctx, s)
	if st, ok := msg.(streamed); ok {
		return answer{msg: st.Message, err: err, extra: st.extra}
	}
	return answer{msg: msg, err: err}
}

// rangeStream glues the chunks together: their sizes are the server's choice, header, count and more belong to the last.
func rangeStream(ctx context.Context, s *side, r *pb.RangeRequest) (proto.Message, error) {
	stream, err := s.kv.RangeStream(ctx, r)
	if err != nil {
		return nil, err
	}
	whole := &pb.RangeResponse{}
	extra := ""
	var last *pb.RangeResponse
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return streamed{whole, extra}, err
		}
		if last != nil && (last.Header != nil || last.Count != 0 || last.More) {
			extra += " header, count or more on a chunk that is not the last;"
		}
		if chunk.RangeResponse == nil {
			extra += " chunk without range_response;"
			continue
		}
		last = chunk.RangeResponse
		whole.Kvs = append(whole.Kvs, last.Kvs...)
	}
	if last == nil {
		return streamed{whole, extra + " no chunk at all;"}, nil
	}
	whole.Header, whole.Count, whole.More = last.Header, last.Count, last.More
	return streamed{whole, extra}, nil
}

func (s *side) renew(ctx context.Context, r *pb.LeaseKeepAliveRequest) (proto.Message, error) {
	if s.keepAlive == nil {
		stream, err := s.lease.LeaseKeepAlive(context.Background())
		if err != nil {
			return nil, err
		}
		s.keepAlive = stream
	}
	if err := s.keepAlive.Send(r); err != nil {
		return nil, err
	}
	type got struct {
		m   *pb.LeaseKeepAliveResponse
		err error
	}
	c := make(chan got, 1)
	go func() {
		m, err := s.keepAlive.Recv()
		c <- got{m, err}
	}()
	select {
	case g := <-c:
		return g.m, g.err
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer on the keepalive stream: %w", ctx.Err())
	}
}

// rawCodec sends bytes as they are, under the name of the codec that the server expects.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) {
	return v.([]byte), nil
}
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func invokeRaw(ctx context.Context, s *side, method string, in []byte, out proto.Message) (proto.Message, error) {
	var raw []byte
	if err := s.conn.Invoke(ctx, method, in, &raw, grpc.ForceCodec(rawCodec{})); err != nil {
		return nil, err
	}
	if err := proto.Unmarshal(raw, out); err != nil {
		return nil, err
	}
	return out, nil
}

// overlong writes v as a varint with padding bytes that carry no value: legal, and never what an encoder emits.
func overlong(b []byte, v uint64) []byte {
	b = protowire.AppendVarint(b, v|1<<63)
	// AppendVarint of a value with bit 63 takes ten bytes; the last holds that bit alone: clear it.
	b[len(b)-1] = 0
	return b
}
