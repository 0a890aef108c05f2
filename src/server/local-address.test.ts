// Goal: the address that peers are dialed from is the first advertised one that others can have, and only when the gate asks for it.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { Logger } from '../telemetry/logger.ts';
import { MemberFixture } from '../testing/member-fixture.ts';
import { memberLocalAddress } from './local-address.ts';

it('takes the first advertised address that is neither a name, nor loopback, nor no address', async () => {
  const fixture = new MemberFixture();
  const lines: string[] = [];
  const sink = { write: (line: string): void => void lines.push(line), flush: (): void => {} };
  const logger = new Logger({ level: 'info', format: 'json', sink, now: () => 0 });
  const gate = '--feature-gates=SetMemberLocalAddr=true';
  const found = async (urls: string, ...flags: string[]): Promise<string | null> => {
    const config = await fixture.config(`--initial-advertise-peer-urls=${urls}`, ...flags);
    return memberLocalAddress(config, logger);
  };
  try {
    assert.equal(await found('http://10.0.0.1:2380'), null);
    assert.equal(lines.length, 0, 'without the gate nobody looks');
    const urls = ['http://127.0.0.1:1', 'http://[0:0::1]:1', 'http://0.0.0.0:1', 'http://[::]:1', 'http://host:1'];
    assert.equal(await found(`${urls},http://10.0.0.1:1`, gate), '10.0.0.1');
    assert.equal(await found(`${urls},http://[fd00::5]:1`, gate), 'fd00::5');
    assert.ok(lines.at(-1)!.includes('setting member local address'));
    assert.equal(await found(`${urls}`, gate), null);
    assert.ok(lines.at(-1)!.includes('unable to set a member local address due to lack of suitable local addresses'));
  } finally {
    fixture.remove();
  }
});
