package main

import (
	"encoding/hex"
	"strings"

	pb "go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// decodeMessage reads an encoded raftpb.Message and answers it as Go writes it and as text, or "malformed".
func decodeMessage(word string) string {
	m := &pb.Message{}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(unhex(word), m); err != nil {
		return "malformed"
	}
	var b strings.Builder
	b.WriteString(marshalHex(m))
	b.WriteByte(' ')
	writeMessages(&b, []*pb.Message{m})
	return b.String()
}

// encodeMessage answers the message of a text as Go writes it: what the text names is set, an entry's fields all are.
func encodeMessage(words []string) string {
	return marshalHex(parseMessage(words))
}

func marshalHex(m *pb.Message) string {
	data, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return hex.EncodeToString(data)
}
