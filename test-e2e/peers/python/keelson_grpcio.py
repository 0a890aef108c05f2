"""Google's own gRPC core (grpcio) with etcd's own protos against a server: what a client in another language meets.

Usage: keelson_grpcio.py HOST:PORT. Prints "ok NAME" or "FAIL NAME: why" for each check and "N passed, M failed"; exits 1 when one
failed. Leaves nothing behind but keys under py/.
"""

import asyncio
import queue
import sys
import threading
import time
import traceback

import grpc
from etcd.api.etcdserverpb import rpc_pb2 as rpc
from etcd.api.etcdserverpb import rpc_pb2_grpc as stubs
from etcd.api.mvccpb import kv_pb2 as mvcc

ENDPOINT = sys.argv[1]
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# Beyond the server's own time-out of 7 s: who hits it has found a hang.
PATIENCE = 15

CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


class Client:
    """A channel with its stubs."""

    def __init__(self, options=(), compression=None):
        # Without a pool of its own, channels of the same target share a connection.
        options = {"grpc.use_local_subchannel_pool": 1, **dict(UNLIMITED), **dict(options)}
        self.channel = grpc.insecure_channel(ENDPOINT, options=list(options.items()), compression=compression)
        self.kv = stubs.KVStub(self.channel)
        self.watch = stubs.WatchStub(self.channel)
        self.lease = stubs.LeaseStub(self.channel)
        self.maintenance = stubs.MaintenanceStub(self.channel)
        self.cluster = stubs.ClusterStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def put(self, key, value, **fields):
        return self.kv.Put(rpc.PutRequest(key=key, value=value, **fields), timeout=PATIENCE)

    def range(self, key, **fields):
        return self.kv.Range(rpc.RangeRequest(key=key, **fields), timeout=PATIENCE)


def end_of(prefix):
    return prefix[:-1] + bytes([prefix[-1] + 1])


def expect_error(code, details, call):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()} {error.details()}"
        assert details in error.details(), error.details()
        return error
    raise AssertionError(f"no error, wanted {code} {details}")


class Stream:
    """Both ends of a bidi call: what is put in is sent, what comes is read by a thread."""

    def __init__(self, method, **options):
        self.requests = queue.Queue()
        self.responses = queue.Queue()
        self.call = method(iter(self.requests.get, None), **options)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            for response in self.call:
                self.responses.put(response)
            self.responses.put(None)
        except grpc.RpcError as error:
            self.responses.put(error)

    def send(self, request):
        self.requests.put(request)

    def next(self, timeout=PATIENCE):
        response = self.responses.get(timeout=timeout)
        if isinstance(response, Exception):
            raise response
        return response


def create_watch(key, **fields):
    return rpc.WatchRequest(create_request=rpc.WatchCreateRequest(key=key, **fields))


@check
def put_and_get():
    with Client() as client:
        first = client.put(b"py/a", b"one")
        second = client.put(b"py/a", b"two", prev_kv=True)
        assert second.prev_kv.value == b"one" and second.header.revision == first.header.revision + 1
        got = client.range(b"py/a")
        kv = got.kvs[0]
        assert (kv.value, kv.version, kv.mod_revision, got.count) == (b"two", 2, second.header.revision, 1)
        assert got.header.cluster_id and got.header.member_id and got.header.raft_term
        assert client.range(b"py/nothing").count == 0


@check
def binary_keys_and_empty_values():
    with Client() as client:
        key = b"py/\x00\xff\xfe" + bytes(range(256))
        client.put(key, b"")
        kv = client.range(key).kvs[0]
        assert kv.key == key and kv.value == b""


@check
def transactions_nested():
    with Client() as client:
        client.put(b"py/t", b"1")
        inner = rpc.TxnRequest(
            compare=[rpc.Compare(result=rpc.Compare.GREATER, target=rpc.Compare.VERSION, key=b"py/t", version=1000)],
            failure=[rpc.RequestOp(request_range=rpc.RangeRequest(key=b"py/t"))],
        )
        answer = client.kv.Txn(
            rpc.TxnRequest(
                compare=[rpc.Compare(target=rpc.Compare.VALUE, key=b"py/t", value=b"1")],
                success=[
                    rpc.RequestOp(request_put=rpc.PutRequest(key=b"py/t", value=b"2")),
                    rpc.RequestOp(request_txn=inner),
                    rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=b"py/nothing")),
                ],
            ),
            timeout=PATIENCE,
        )
        assert answer.succeeded and len(answer.responses) == 3
        nested = answer.responses[1].response_txn
        assert not nested.succeeded and nested.responses[0].response_range.kvs[0].value == b"2"
        assert answer.responses[2].response_delete_range.deleted == 0


@check
def ranges_with_every_option():
    with Client() as client:
        for i in range(50):
            client.put(b"py/r/%03d" % i, b"v" * i)
        prefix = {"key": b"py/r/", "range_end": end_of(b"py/r/")}
        page = client.range(limit=10, **prefix)
        assert len(page.kvs) == 10 and page.more and page.count == 50
        descending = client.range(sort_order=rpc.RangeRequest.DESCEND, sort_target=rpc.RangeRequest.KEY, **prefix)
        assert [kv.key for kv in descending.kvs] == sorted((kv.key for kv in descending.kvs), reverse=True)
        assert client.range(count_only=True, **prefix).count == 50
        assert all(kv.value == b"" for kv in client.range(keys_only=True, **prefix).kvs)
        assert client.range(serializable=True, **prefix).count == 50
        past = client.range(revision=page.kvs[0].mod_revision, **prefix)
        assert past.count == 1


@check
def range_stream():
    with Client() as client:
        keys, header, count = [], 0, 0
        request = rpc.RangeRequest(key=b"py/r/", range_end=end_of(b"py/r/"))
        for message in client.kv.RangeStream(request, timeout=PATIENCE):
            part = message.range_response
            keys += [kv.key for kv in part.kvs]
            header, count = part.header.revision or header, part.count or count
        assert len(keys) == 50 == count and keys == sorted(keys) and header > 0


@check
def watch_sees_what_happens():
    with Client() as client:
        before = client.put(b"py/w/0", b"before").header.revision
        stream = Stream(client.watch.Watch)
        stream.send(create_watch(b"py/w/", range_end=end_of(b"py/w/"), start_revision=before, prev_kv=True))
        assert stream.next().created
        for i in range(20):
            client.put(b"py/w/%d" % (i % 3), b"%d" % i)
        client.kv.DeleteRange(rpc.DeleteRangeRequest(key=b"py/w/", range_end=end_of(b"py/w/")), timeout=PATIENCE)
        events = []
        while len(events) < 24:
            events += stream.next().events
        assert [event.kv.mod_revision for event in events[:21]] == list(range(before, before + 21))
        deletes = [event for event in events if event.type == mvcc.Event.DELETE]
        assert len(deletes) == 3 and all(event.prev_kv.value for event in deletes)
        stream.send(rpc.WatchRequest(progress_request=rpc.WatchProgressRequest()))
        assert stream.next().header.revision >= before + 21
        stream.send(rpc.WatchRequest(cancel_request=rpc.WatchCancelRequest(watch_id=0)))
        assert stream.next().canceled
        stream.call.cancel()
        expect_error(grpc.StatusCode.CANCELLED, "", stream.next)


@check
def watch_many_watchers_on_one_stream():
    with Client() as client:
        stream = Stream(client.watch.Watch)
        for i in range(200):
            stream.send(create_watch(b"py/m/%d" % i))
        ids = {stream.next().watch_id for _ in range(200)}
        assert ids == set(range(200))
        for i in range(0, 200, 7):
            client.put(b"py/m/%d" % i, b"x")
        seen = {stream.next().watch_id for _ in range(0, 200, 7)}
        assert len(seen) == len(range(0, 200, 7))
        stream.call.cancel()


@check
def watch_large_events_in_fragments():
    with Client() as client:
        stream = Stream(client.watch.Watch)
        stream.send(create_watch(b"py/big/", range_end=end_of(b"py/big/"), fragment=True))
        assert stream.next().created
        ops = [rpc.RequestOp(request_put=rpc.PutRequest(key=b"py/big/%d" % i, value=b"z" * 140_000)) for i in range(10)]
        client.kv.Txn(rpc.TxnRequest(success=ops), timeout=PATIENCE)
        got = []
        while len(got) < 10:
            got += stream.next().events
        assert {len(event.kv.value) for event in got} == {140_000}
        stream.call.cancel()


@check
def watch_of_compacted_revision():
    with Client() as client:
        revision = client.put(b"py/c", b"1").header.revision
        client.put(b"py/c", b"2")
        client.kv.Compact(rpc.CompactionRequest(revision=revision + 1, physical=True), timeout=PATIENCE)
        stream = Stream(client.watch.Watch)
        stream.send(create_watch(b"py/c", start_revision=revision))
        answers = [stream.next(), stream.next()]
        assert answers[0].created and answers[1].canceled and answers[1].compact_revision == revision + 1
        expect_error(grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted",
                     lambda: client.range(b"py/c", revision=revision))
        stream.call.cancel()


@check
def leases():
    with Client() as client:
        granted = client.lease.LeaseGrant(rpc.LeaseGrantRequest(TTL=60), timeout=PATIENCE)
        client.put(b"py/l", b"leased", lease=granted.ID)
        keep = Stream(client.lease.LeaseKeepAlive)
        for _ in range(3):
            keep.send(rpc.LeaseKeepAliveRequest(ID=granted.ID))
            assert keep.next().TTL == 60
        keep.send(rpc.LeaseKeepAliveRequest(ID=12345))
        assert keep.next().TTL == 0
        left = client.lease.LeaseTimeToLive(rpc.LeaseTimeToLiveRequest(ID=granted.ID, keys=True), timeout=PATIENCE)
        assert left.grantedTTL == 60 and list(left.keys) == [b"py/l"]
        listed = client.lease.LeaseLeases(rpc.LeaseLeasesRequest(), timeout=PATIENCE)
        assert granted.ID in [lease.ID for lease in listed.leases]
        client.lease.LeaseRevoke(rpc.LeaseRevokeRequest(ID=granted.ID), timeout=PATIENCE)
        assert client.range(b"py/l").count == 0
        expect_error(grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found",
                     lambda: client.put(b"py/l", b"x", lease=granted.ID))
        keep.send(None)  # ends the requests
        assert keep.next() is None


@check
def a_lease_runs_out():
    with Client() as client:
        granted = client.lease.LeaseGrant(rpc.LeaseGrantRequest(TTL=1), timeout=PATIENCE)
        client.put(b"py/short", b"x", lease=granted.ID)
        stream = Stream(client.watch.Watch)
        stream.send(create_watch(b"py/short"))
        assert stream.next().created
        assert stream.next().events[0].type == mvcc.Event.DELETE
        stream.call.cancel()


@check
def errors_have_etcds_words():
    with Client() as client:
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        expect_error(invalid, "etcdserver: key is not provided", lambda: client.put(b"", b"x"))
        expect_error(grpc.StatusCode.OUT_OF_RANGE, "required revision is a future revision",
                     lambda: client.range(b"py/a", revision=10**9))
        ops = [rpc.RequestOp(request_put=rpc.PutRequest(key=b"py/d", value=b"x"))] * 2
        expect_error(invalid, "etcdserver: duplicate key given in txn request",
                     lambda: client.kv.Txn(rpc.TxnRequest(success=ops), timeout=PATIENCE))
        unknown = client.channel.unary_unary("/etcdserverpb.KV/NoSuch", lambda x: x, lambda x: x)
        expect_error(grpc.StatusCode.UNIMPLEMENTED, "unknown method NoSuch", lambda: unknown(b"", timeout=PATIENCE))
        broken = client.channel.unary_unary("/etcdserverpb.KV/Put", lambda x: x, lambda x: x)
        expect_error(grpc.StatusCode.INTERNAL, "", lambda: broken(b"\xff\xff", timeout=PATIENCE))


@check
def messages_up_to_the_limits():
    with Client() as client:
        client.put(b"py/large", b"x" * 1_500_000)
        assert len(client.range(b"py/large").kvs[0].value) == 1_500_000
        expect_error(grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large",
                     lambda: client.put(b"py/large", b"x" * 1_600_000))
        expect_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max",
                     lambda: client.put(b"py/large", b"x" * 3_000_000))
        # The connection is as good as before.
        client.put(b"py/large", b"small")


@check
def an_answer_of_30_megabytes():
    with Client() as client:
        for i in range(30):
            client.put(b"py/list/%02d" % i, bytes([i]) * 1_000_000)
        prefix = {"key": b"py/list/", "range_end": end_of(b"py/list/")}
        got = client.range(**prefix)
        assert sum(len(kv.value) for kv in got.kvs) == 30_000_000
        assert all(set(kv.value) == {i} for i, kv in enumerate(got.kvs))
        streamed = 0
        for message in client.kv.RangeStream(rpc.RangeRequest(**prefix), timeout=60):
            streamed += sum(len(kv.value) for kv in message.range_response.kvs)
        assert streamed == 30_000_000
    with Client([("grpc.max_receive_message_length", 4 * 1024 * 1024)]) as limited:
        expect_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "", lambda: limited.range(**prefix))
        assert limited.range(b"py/a").count == 1
        limited.kv.DeleteRange(rpc.DeleteRangeRequest(**prefix), timeout=PATIENCE)


@check
def deadlines():
    with Client() as client:
        client.range(b"py/a")
        # Some of them are over before they arrive; none may be answered with anything else, and none may hang. grpcio tells a reset
        # that the server's own deadline sends first as a cancellation.
        codes = set()
        for micros in (1, 50, 200, 1000, 5000):
            try:
                client.kv.Put(rpc.PutRequest(key=b"py/deadline", value=b"x"), timeout=micros / 1e6)
            except grpc.RpcError as error:
                codes.add(error.code())
        assert codes <= {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}, codes
        stream = Stream(client.watch.Watch, timeout=0.5)
        stream.send(create_watch(b"py/never"))
        assert stream.next().created
        started = time.monotonic()
        expect_error(grpc.StatusCode.DEADLINE_EXCEEDED, "", stream.next)
        assert 0.2 < time.monotonic() - started < 5
        assert client.range(b"py/a").count == 1


@check
def cancelled_calls_leave_the_connection_good():
    with Client() as client:
        for _ in range(200):
            client.kv.Range.future(rpc.RangeRequest(key=b"py/", range_end=b"py0"), timeout=PATIENCE).cancel()
        stream = client.kv.RangeStream(rpc.RangeRequest(key=b"py/", range_end=b"py0"), timeout=PATIENCE)
        next(stream)
        stream.cancel()
        assert client.range(b"py/a").count == 1


@check
def many_calls_at_once():
    with Client() as client:
        futures = [
            client.kv.Put.future(rpc.PutRequest(key=b"py/many/%d" % i, value=b"v" * 100), timeout=PATIENCE)
            for i in range(3000)
        ]
        revisions = {future.result().header.revision for future in futures}
        assert len(revisions) == 3000
        count = client.range(b"py/many/", range_end=end_of(b"py/many/"), count_only=True).count
        assert count == 3000


@check
def many_channels():
    clients = [Client() for _ in range(50)]
    try:
        futures = [c.kv.Range.future(rpc.RangeRequest(key=b"py/a"), timeout=PATIENCE) for c in clients for _ in range(5)]
        assert all(future.result().count == 1 for future in futures)
    finally:
        for client in clients:
            client.channel.close()


@check
def compressed_requests():
    with Client(compression=grpc.Compression.Gzip) as client:
        client.put(b"py/gzip", b"a" * 100_000)
        assert client.range(b"py/gzip").kvs[0].value == b"a" * 100_000
    with Client(compression=grpc.Compression.Deflate) as client:
        expect_error(grpc.StatusCode.UNIMPLEMENTED, "Decompressor is not installed for grpc-encoding",
                     lambda: client.put(b"py/deflate", b"a" * 1000))


@check
def metadata_of_every_kind():
    with Client() as client:
        metadata = (("hasleader", "true"), ("client-api-version", "3.7"), ("x-text", "y" * 6000), ("x-bin", bytes(range(256))))
        answer, call = client.kv.Range.with_call(rpc.RangeRequest(key=b"py/a"), timeout=PATIENCE, metadata=metadata)
        assert answer.count == 1 and call.code() == grpc.StatusCode.OK
        stream = Stream(client.watch.Watch, metadata=(("hasleader", "true"),))
        stream.send(create_watch(b"py/a"))
        assert stream.next().created
        stream.call.cancel()


@check
def status_members_and_snapshot():
    with Client() as client:
        status = client.maintenance.Status(rpc.StatusRequest(), timeout=PATIENCE)
        assert status.version.startswith("3.7.") and status.leader == status.header.member_id
        members = client.cluster.MemberList(rpc.MemberListRequest(linearizable=True), timeout=PATIENCE)
        assert [member.ID for member in members.members] == [status.leader]
        received, last = 0, None
        for last in client.maintenance.Snapshot(rpc.SnapshotRequest(), timeout=60):
            received += len(last.blob)
        assert received > 100_000 and last.remaining_bytes == 0 and len(last.blob) == 32


@check
def pings_while_idle():
    # As often as etcd lets a client ping (--grpc-keepalive-min-time), with a stream open.
    with Client([("grpc.keepalive_time_ms", 5500), ("grpc.keepalive_timeout_ms", 2000)]) as client:
        stream = Stream(client.watch.Watch)
        stream.send(create_watch(b"py/ping"))
        assert stream.next().created
        time.sleep(13)
        client.put(b"py/ping", b"still here")
        assert stream.next().events[0].kv.value == b"still here"
        stream.call.cancel()


@check
def the_asynchronous_interface():
    async def run():
        async with grpc.aio.insecure_channel(ENDPOINT, options=UNLIMITED) as channel:
            kv, watch = stubs.KVStub(channel), stubs.WatchStub(channel)
            call = watch.Watch()
            await call.write(create_watch(b"py/aio/", range_end=end_of(b"py/aio/")))
            assert (await call.read()).created
            puts = [kv.Put(rpc.PutRequest(key=b"py/aio/%d" % i, value=b"x")) for i in range(500)]
            await asyncio.gather(*puts)
            events = 0
            while events < 500:
                events += len((await call.read()).events)
            assert events == 500
            call.cancel()

    asyncio.run(asyncio.wait_for(run(), 60))


def main():
    failed = 0
    for function in CHECKS:
        started = time.monotonic()
        try:
            function()
            print(f"ok {function.__name__} {time.monotonic() - started:.2f}s", flush=True)
        except Exception as error:
            failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{type(error).__name__} {error}".strip().replace("\n", " ")
            print(f"FAIL {function.__name__}: {why[:500]} (line {where.lineno}: {where.line})", flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
