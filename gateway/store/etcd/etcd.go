package etcd

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/drawbridge-gateway/drawbridge/gateway/store/seal"
)

const (
	// keepAlive and keepAliveTimeout bound how long a connection may be silent before
	// the client closes it. gRPC does not allow less than 10 seconds.
	keepAlive        = 10 * time.Second
	keepAliveTimeout = 3 * time.Second

	// dialTimeout bounds one attempt to connect to a member, and dialPause the pause after
	// it. gRPC's defaults are 20 seconds and 2 minutes: a gateway that was cut off for minutes
	// would follow only minutes after the network has healed.
	dialTimeout = 5 * time.Second
	dialPause   = 3 * time.Second
)

// MaxHistory bounds Options.History: the head lists every record.
const MaxHistory = 1000

// Options configure a Store. Endpoints and Key are required.
type Options struct {
	Endpoints []string // host:port or URLs of etcd members

	// Prefix begins every key. Fleets with different prefixes can share one etcd
	// without affecting each other. Empty: "/drawbridge".
	Prefix string

	// TLS encrypts the connections to the members. Nil: plaintext.
	TLS *tls.Config

	// Username and Password authenticate to etcd. Empty: the client certificate, if any.
	Username, Password string

	// Key is the seal key of the fleet. The first gateway makes a data key, and all
	// others must have the same seal key.
	Key *seal.Key

	// History is the number of revisions to store, with the data to roll back to them.
	// 0: 100; at most MaxHistory.
	History int

	// Timeout bounds each request. 0: 5s.
	Timeout time.Duration

	// Alive is how long a gateway still counts as connected after it stops without notice,
	// in whole seconds. 0: 15s.
	Alive time.Duration

	// Now returns the time that the store writes to etcd. Nil: time.Now.
	Now func() time.Time

	// checkpointEvery is the number of records after which a commit writes a checkpoint.
	// 0: 64. Tests set it.
	checkpointEvery int
}

// A Store is a client of a fleet's keys in etcd. Its methods may be called concurrently.
type Store struct {
	client          *clientv3.Client
	prefix          string
	key             *seal.Key
	history         int
	timeout         time.Duration
	alive           time.Duration
	now             func() time.Time
	checkpointEvery int

	mu     sync.Mutex
	opened *fleetKey // the key record that was unwrapped last; guarded by mu
}

// Open returns a Store. It does not wait for a connection: each method fails while no
// member answers.
func Open(o Options) (*Store, error) {
	if o.Key == nil {
		return nil, errors.New("a fleet needs a seal key: etcd must never hold private keys in the clear")
	}
	if o.History > MaxHistory {
		return nil, fmt.Errorf("a fleet stores at most %d revisions", MaxHistory)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints: o.Endpoints, TLS: o.TLS, Username: o.Username, Password: o.Password,
		DialTimeout: dialTimeout, DialOptions: []grpc.DialOption{grpc.WithConnectParams(dialing())}, DialKeepAliveTime: keepAlive, DialKeepAliveTimeout: keepAliveTimeout,
		Logger: zap.NewNop(), // errors are returned
	})
	if err != nil {
		return nil, fmt.Errorf("etcd: %w", err)
	}
	return &Store{
		client: client, prefix: strings.TrimRight(cmp.Or(o.Prefix, "/drawbridge"), "/") + "/",
		key: o.Key, history: cmp.Or(o.History, 100), timeout: cmp.Or(o.Timeout, 5*time.Second), alive: cmp.Or(o.Alive, 15*time.Second), now: o.Now, checkpointEvery: cmp.Or(o.checkpointEvery, 64),
	}, nil
}

// dialing returns how the client connects to a member again.
func dialing() grpc.ConnectParams {
	p := grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: dialTimeout}
	p.Backoff.MaxDelay = dialPause
	return p
}

// Close closes the connections.
func (s *Store) Close() error { return s.client.Close() }

// The keys of a fleet, below its prefix.
const (
	keyKey           = "key"         // a fleetKey
	headKey          = "head"        // the sealed Head
	revisionPrefix   = "revision/"   // revision/N/ID/n: a chunk of a record; revision/N/ID/amended: see Amend
	checkpointPrefix = "checkpoint/" // checkpoint/N/ID/n: a chunk of a state

	amendedName      = "amended" // sorts after the chunks
	numberOfRevision = "%016x"   // so that keys sort by revision
	keyOfChunk       = "%s%04x"
	chunksPerRead    = 4
)

// blobPrefix returns the prefix of the chunks that a commit writes.
func blobPrefix(kind string, revision int64, id string) string {
	return fmt.Sprintf("%s"+numberOfRevision+"/%s/", kind, revision, id)
}

// limited returns a context for one request.
func (s *Store) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, s.timeout, fmt.Errorf("no quorum answered within %v", s.timeout))
}

// ErrNoSpace reports that etcd refuses writes because its quota is used up. It has the
// words of etcd's own error, which operators search for.
var ErrNoSpace = errors.New("etcd is out of space (mvcc: database space exceeded): it answers reads and refuses writes until its history is compacted, its members are defragmented, and the alarm NOSPACE is disarmed")

// explain wraps the error of a request. If the request timed out, it wraps the cause of
// the timeout instead.
func explain(ctx context.Context, err error) error {
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return ErrNoSpace
	}
	if cause := context.Cause(ctx); err != nil && cause != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("etcd: %w", cause)
	}
	return fmt.Errorf("etcd: %w", err)
}

// txn commits a transaction.
func (s *Store) txn(ctx context.Context, conditions []clientv3.Cmp, then ...clientv3.Op) (*clientv3.TxnResponse, error) {
	ctx, cancel := s.limited(ctx)
	defer cancel()
	resp, err := s.client.Txn(ctx).If(conditions...).Then(then...).Commit()
	if err != nil {
		return nil, explain(ctx, err)
	}
	return resp, nil
}
