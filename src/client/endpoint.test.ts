// Goal: endpoints are read as clientv3 reads them. Method: the spellings that its own tests list.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseEndpoint } from './endpoint.ts';

test('endpoints become targets, and say whether they are encrypted', () => {
  const cases: readonly (readonly [string, string, string, boolean, string?])[] = [
    ['127.0.0.1:2379', '127.0.0.1:2379', 'optional', true, '127.0.0.1'],
    ['10.0.0.44:437', '10.0.0.44:437', 'optional', false, '10.0.0.44'],
    ['localhost:2379', 'localhost:2379', 'optional', true],
    ['[::1]:2379', '[::1]:2379', 'optional', true, '::1'],
    ['http://example.com:2379', 'example.com:2379', 'never', false],
    ['HTTP://127.0.0.1:2379/', '127.0.0.1:2379', 'never', true, '127.0.0.1'],
    ['https://user@example.com:2379/path?x', 'example.com:2379', 'required', false],
    ['unix:/tmp/a.sock', 'unix:/tmp/a.sock', 'optional', true],
    ['unix://relative.sock', 'unix:relative.sock', 'optional', true],
    ['unix:///tmp/a.sock', 'unix:/tmp/a.sock', 'optional', true],
    ['unixs:///tmp/a.sock', 'unix:/tmp/a.sock', 'required', true],
    ['dns:///example.com:1', 'dns:///example.com:1', 'optional', false],
    ['127.example.com:1', '127.example.com:1', 'optional', false],
  ];
  for (const [text, target, tls, isLocal, address = null] of cases) {
    assert.deepEqual(parseEndpoint(text), { target, tls, isLocal, address }, text);
  }
});
