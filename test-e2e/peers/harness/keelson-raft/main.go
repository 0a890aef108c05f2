// keelson-raft holds the RawNodes of a group of go.etcd.io/raft members and does with them what its standard input says, one
// command a line, one answer a line: what came out, and the whole state of the member after it. src/testing/raft-lockstep.ts
// does the same with keelson's core and compares the answers.
//
//	TIMEOUT command MEMBER arguments...
//
// TIMEOUT replaces the member's random election timeout after the command, so that both sides have the same.
//
//	storage ID CONF                         an empty storage that knows a configuration
//	start ID APPLIED CONF key=value...      a RawNode on that storage (node.go lists the keys)
//	bootstrap ID id:contextHex...           the first start of an empty group
//	tick ID · campaign ID · propose ID DATA.. · conf-change ID v1|v2 HEX · step ID MESSAGE · read ID DATA
//	transfer ID TO · forget-leader ID · unreachable ID PEER · snapshot-status ID PEER ok|failed
//	ready ID · persist ID COUNT · apply ID VOID     the loop of a driver with asynchronous storage writes
//	settle ID VOID                          Ready, write, apply, Advance until nothing is left: the loop of etcd's server
//	flow ID id:state:next:paused:pending..  replaces what a leader knows of the flow to its followers (raft-relation.ts)
//	compact ID INDEX CONF DATA FIRST        a snapshot as of INDEX, the log from FIRST
//	crash ID COUNT                          the oldest COUNT writes in flight reach the disk, the others are lost
//
// Of no member (src/peer/raft-message.peer-test.ts):
//
//	decode 0 HEX                            reads a raftpb.Message: HEX of it as Go writes it, then its text
//	encode 0 MESSAGE                        HEX of a message as Go writes it
package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func main() {
	input := bufio.NewReaderSize(os.Stdin, 1<<20)
	output := bufio.NewWriterSize(os.Stdout, 1<<20)
	group := &group{nodes: map[uint64]*node{}}
	for {
		line, err := input.ReadString('\n')
		if err != nil {
			break
		}
		output.WriteString(group.answer(strings.TrimSuffix(line, "\n")))
		output.WriteByte('\n')
		// Nobody waits for an answer while more commands are there.
		if input.Buffered() == 0 {
			output.Flush()
		}
	}
	output.Flush()
}

type group struct {
	nodes map[uint64]*node
}

// answer never fails: a panic of etcd's is an answer too.
func (g *group) answer(line string) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text = "panic: " + strings.ReplaceAll(fmt.Sprint(p), "\n", " ")
		}
	}()
	words := strings.Split(line, " ")
	timeout, name, id := number(words[0]), words[1], number(words[2])
	n := g.nodes[id]
	switch name {
	case "storage":
		g.nodes[id] = newNode(id, parseConf(words[3]))
		return "ok"
	case "decode":
		return decodeMessage(words[3])
	case "encode":
		return encodeMessage(words[3:])
	}
	out := &outcome{result: "ok"}
	n.run(name, words[3:], out)
	if n.raw == nil {
		return out.result
	}
	n.private.normalise(n)
	if timeout > 0 {
		*n.private.randomizedElectionTimeout = int(timeout)
	}
	return out.text(n)
}

func number(word string) uint64 {
	value, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		panic(err)
	}
	return value
}
