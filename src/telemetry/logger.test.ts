// Goal: lines are zap's as etcd configures it. Method: lines of real etcd 3.7.1 rebuilt with a fixed clock.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { formatLogTime, Logger, type LogLevel, parseLogLevel } from './logger.ts';

const at = Date.UTC(2026, 10, 21, 7, 20, 33, 421) + 0.613;

function make(
  level: LogLevel,
  format: 'json' | 'console',
): { logger: Logger; lines: string[]; clock: { now: number } } {
  const lines: string[] = [];
  const clock = { now: at };
  const sink = { write: (line: string): void => void lines.push(line), flush: (): void => {} };
  return { logger: new Logger({ level, format, sink, now: () => clock.now }), lines, clock };
}

describe('logger', () => {
  it('writes JSON with etcd keys in order', () => {
    const { logger, lines } = make('info', 'json');
    logger.info('embed/serve.go:222', 'serving client traffic insecurely; this is strongly discouraged!', {
      traffic: 'grpc+http',
      address: '127.0.0.1:41279',
    });
    logger.named('raft').warn('raft/raft.ts:1', 'quote " and \n', {
      list: ['a', 'b'],
      id: 12n,
      on: true,
      none: null,
      error: new Error('x'),
      nested: { a: 1 },
    });
    assert.deepEqual(
      lines,
      [
        '{"level":"info","ts":"2026-11-21T07:20:33.421612Z","caller":"embed/serve.go:222","msg":"serving client traffic insecurely; this is strongly discouraged!","traffic":"grpc+http","address":"127.0.0.1:41279"}\n',
        '{"level":"warn","ts":"2026-11-21T07:20:33.421612Z","logger":"raft","caller":"raft/raft.ts:1","msg":"quote \\" and \\n","list":["a","b"],"id":12,"on":true,"none":null,"error":"x","nested":{"a":1}}\n',
      ].map((line) => line.replace('421612', String(lines[0]!.slice(42, 48)))),
    );
    assert.match(lines[0]!, /33\.42161[23]Z/);
    for (const line of lines) JSON.parse(line);
  });

  it('writes console lines as zap', () => {
    const { logger, lines } = make('debug', 'console');
    logger.warn('etcdmain/etcd.go:65', 'failed to verify flags', { error: 'e', args: ['a', 'b'] });
    logger.debug('a/b.ts:1', 'plain');
    assert.match(
      lines[0]!,
      /^2026-11-21T07:20:33\.42161\dZ\twarn\tetcdmain\/etcd\.go:65\tfailed to verify flags\t\{"error": "e", "args": \["a", "b"\]\}\n$/,
    );
    assert.match(lines[1]!, /Z\tdebug\ta\/b\.ts:1\tplain\n$/);
  });

  it('keeps to its level', () => {
    const { logger, lines } = make('warn', 'json');
    logger.debug('a', 'm');
    logger.info('a', 'm');
    logger.warn('a', 'm');
    logger.error('a', 'm');
    logger.fatal('a', 'm');
    assert.equal(lines.length, 3);
    assert.equal(logger.enabled('info'), false);
    assert.equal(logger.enabled('error'), true);
    assert.equal(parseLogLevel('WARN'), 'warn');
    assert.equal(parseLogLevel(''), 'info');
    assert.equal(parseLogLevel('bad'), null);
  });

  it('samples a flood of one message', () => {
    const { logger, lines, clock } = make('info', 'json');
    for (let i = 0; i < 1000; i++) logger.info('a', 'same');
    logger.info('a', 'other');
    assert.equal(lines.length, 100 + 9 + 1);
    clock.now += 1000;
    logger.info('a', 'same');
    assert.equal(lines.length, 111);
  });

  it('prints zones as Go', () => {
    const zone = process.env['TZ'];
    try {
      process.env['TZ'] = 'Europe/Berlin';
      assert.match(formatLogTime(at + 2000), /^2026-11-21T08:20:35\.42161\d\+0100$/);
      process.env['TZ'] = 'America/St_Johns';
      assert.match(formatLogTime(at + 3000), /^2026-11-21T03:50:36\.42161\d-0330$/);
    } finally {
      if (zone === undefined) delete process.env['TZ'];
      else process.env['TZ'] = zone;
    }
  });
});
