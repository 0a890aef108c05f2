// Goal: raft's lines stand in the member's log as etcd's do: under their name, at their level, those of single messages only where
// somebody asked for them. Method: what a lone voter says until it leads, in a log that is kept.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RawNode } from '../raft/raw-node.ts';
import { settle, testConfig, voterStorage } from '../raft/testing.ts';
import { MessageType, newMessage } from '../raft/types.ts';
import { Logger, type LogLevel } from '../telemetry/logger.ts';
import { raftLogger } from './raft-log.ts';

function loggedAt(level: LogLevel): Record<string, string>[] {
  const lines: Record<string, string>[] = [];
  const sink = { write: (line: string): void => void lines.push(JSON.parse(line)), flush: (): void => {} };
  const storage = voterStorage(1n, 0xdan);
  const logger = raftLogger(new Logger({ level, format: 'json', sink, now: () => 0 }));
  const node = new RawNode(testConfig(storage, { logger }));
  assert.equal(logger.debugEnabled, level === 'debug');
  node.campaign();
  settle(node, storage);
  const vote = newMessage(MessageType.voteResp, 1n);
  node.step({ ...vote, from: 0xdan, term: 1 });
  node.reportUnreachable(0xdan);
  return lines;
}

test('an election, as etcd logs it', () => {
  const lines = loggedAt('info');
  for (const { logger, level } of lines) assert.deepEqual([logger, level], ['raft', 'info']);
  assert.deepEqual(
    lines.map(({ msg }) => msg),
    [
      '1 switched to configuration voters=(1 da)',
      '1 became follower at term 0',
      'newRaft 1 [peers: [1,da], term: 0, commit: 0, applied: 0, lastindex: 0, lastterm: 0]',
      '1 is starting a new election at term 0',
      '1 became candidate at term 1',
      '1 [logterm: 0, index: 0] sent MsgVote request to da at term 1',
      '1 received MsgVoteResp from 1 at term 1',
      '1 has received 1 MsgVoteResp votes and 0 vote rejections',
      '1 received MsgVoteResp from da at term 1',
      '1 has received 2 MsgVoteResp votes and 0 vote rejections',
      '1 became leader at term 1',
    ],
  );
});

test('what concerns single messages is said at level debug alone', () => {
  const [last] = loggedAt('debug').slice(-1);
  assert.equal(last!['level'], 'debug');
  assert.equal(
    last!['msg'],
    '1 failed to send message to da because it is unreachable [StateProbe match=0 next=1 inactive]',
  );
  assert.deepEqual(loggedAt('warn'), []);
});
