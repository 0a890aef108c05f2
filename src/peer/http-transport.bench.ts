// Cost of a turn between two members over real sockets in one process: an append of some entries of 300 B one way, its
// acknowledgement the other way; both members' CPU together, kernel included. Beside it the same bytes by node:http alone
// (response.write() on one side, a client's data events on the other), without any encoding: what the own framing saves.
//
//   node src/peer/http-transport.bench.ts
//
// On a shared 2-core machine with Node 26, us of CPU a turn (append and acknowledgement, both ends):
//
//   entries    transport    node:http    sockets alone
//         1           27-30        30-33            19
//        50           43-46        48-55
//
// Most of it is the kernel's.

import { createServer, get, type IncomingMessage, type ServerResponse } from 'node:http';
import { type Entry, EntryType, type Message, MessageType, newMessage } from '../raft/types.ts';
import { TransportMember, until } from '../testing/transport-member.ts';
import { etcdTimings } from './transport-context.ts';

const TURNS = 20_000;
const data = Buffer.alloc(300, 'x');

function cpuMicros(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

async function transportTurns(entryCount: number): Promise<number> {
  const a = await TransportMember.start({ id: 1n, timings: etcdTimings });
  const b = await TransportMember.start({ id: 2n, timings: etcdTimings });
  a.transport.addPeer(2n, [b.url]);
  b.transport.addPeer(1n, [a.url]);
  const streams = (one: TransportMember): number =>
    one.logLines.filter((line) => line.includes('"stream-writer-type"') && line.includes('established')).length;
  await until(() => streams(a) === 2 && streams(b) === 2);
  let index = 1_000_000;
  const append = (): void => {
    const entries: Entry[] = [];
    for (let i = 1; i <= entryCount; i++) entries.push({ term: 5, index: index + i, type: EntryType.normal, data });
    const message = newMessage(MessageType.app, 2n);
    a.transport.send([Object.assign(message, { from: 1n, term: 5, logTerm: 5, index, entries, commit: index })]);
    a.transport.flush();
    index += entryCount;
  };
  let turns = 0;
  let done: () => void = () => {};
  b.onMessage = ({ index: at, entries }: Message): void => {
    b.messages.length = 0;
    const answer = newMessage(MessageType.appResp, 1n);
    b.transport.send([Object.assign(answer, { from: 2n, term: 5, index: at + entries.length })]);
    b.transport.flush();
  };
  a.onMessage = (): void => {
    a.messages.length = 0;
    if (++turns < TURNS) append();
    else done();
  };
  const start = cpuMicros();
  await new Promise<void>((resolve) => {
    done = resolve;
    append();
  });
  const micros = (cpuMicros() - start) / TURNS;
  await a.stop();
  await b.stop();
  return micros;
}

async function nodeTurns(entryCount: number): Promise<number> {
  const streams: ServerResponse[] = [];
  const server = createServer((_request, response) => {
    response.flushHeaders();
    streams.push(response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  const readers: IncomingMessage[] = [];
  for (let i = 0; i < 2; i++) {
    get({ port, host: '127.0.0.1', agent: false }, (response) => readers.push(response));
    await until(() => readers.length === i + 1);
  }
  const appendBytes = Buffer.alloc(25 + entryCount * 330);
  const answerBytes = Buffer.alloc(30);
  let turns = 0;
  const start = cpuMicros();
  await new Promise<void>((resolve) => {
    let received = 0;
    readers[0]!.on('data', (chunk: Buffer) => {
      received += chunk.length;
      if (received < appendBytes.length) return;
      received = 0;
      streams[1]!.write(answerBytes);
    });
    readers[1]!.on('data', () => {
      if (++turns < TURNS) streams[0]!.write(appendBytes);
      else resolve();
    });
    streams[0]!.write(appendBytes);
  });
  const micros = (cpuMicros() - start) / TURNS;
  for (const reader of readers) reader.destroy();
  server.close();
  return micros;
}

for (let round = 0; round < 3; round++) {
  for (const entryCount of [1, 50]) {
    const transport = await transportTurns(entryCount);
    const node = await nodeTurns(entryCount);
    console.log(`${entryCount} entries: transport ${transport.toFixed(1)} us, node:http ${node.toFixed(1)} us`);
  }
}
