package health

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/drawbridge-gateway/drawbridge/bridge/upstream"
)

// GRPCOptions describe a call of the gRPC health checking protocol
// (grpc.health.v1).
type GRPCOptions struct {
	Service string // the service to check; "": the whole server
	Host    string // see HTTPOptions.Host
}

// GRPC calls grpc.health.v1.Health/Check, which must answer SERVING. It uses
// HTTP/2: by ALPN with TLS, or by prior knowledge in plaintext.
func GRPC(o GRPCOptions) Check {
	r := &request{
		method: http.MethodPost, path: "/grpc.health.v1.Health/Check", host: o.Host, prior: true, needs2: true,
		header: http.Header{"User-Agent": {userAgent}, "Content-Type": {"application/grpc"}, "Te": {"trailers"}},
		body:   string(checkRequest(o.Service)),
	}
	return func(ctx context.Context, e *upstream.Endpoint) error { return r.send(ctx, e, checkGRPC) }
}

// maxMessage bounds the response, which holds one enum.
const maxMessage = 1 << 10

// checkGRPC checks a response.
func checkGRPC(resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return failed(fmt.Sprintf("the endpoint answered %d, which is not gRPC", resp.StatusCode))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage+1))
	if err != nil {
		return err
	}
	if len(body) > maxMessage {
		return failed("the response is too long")
	}
	status := resp.Trailer.Get("Grpc-Status")
	if status == "" {
		status = resp.Header.Get("Grpc-Status") // the response has no body and no trailer
	}
	switch code, err := strconv.Atoi(status); {
	case err != nil:
		return failed("the response has no gRPC status")
	case code == 5: // NOT_FOUND
		return failed("the endpoint does not know the service")
	case code == 12: // UNIMPLEMENTED
		return failed("the endpoint has no grpc.health.v1.Health")
	case code != 0:
		return failed(fmt.Sprintf("the call failed with gRPC status %d", code))
	}
	serving, err := servingStatus(body)
	switch {
	case err != nil:
		return failed("the response is malformed: " + err.Error())
	case serving != servingYes:
		return failed("the endpoint is " + servingName(serving))
	}
	return nil
}

// servingYes is HealthCheckResponse.SERVING.
const servingYes = 1

func servingName(n uint64) string {
	switch n {
	case 0:
		return "UNKNOWN"
	case 2:
		return "NOT_SERVING"
	case 3:
		return "SERVICE_UNKNOWN"
	}
	return "in the state " + strconv.FormatUint(n, 10)
}

// This package encodes the two small messages itself, because traffic does not
// need the gRPC library.

// checkRequest returns a HealthCheckRequest with the service in field 1, as an
// uncompressed gRPC message with its length prefix.
func checkRequest(service string) []byte {
	var message []byte
	if service != "" {
		message = append(message, 1<<3|2)
		message = binary.AppendUvarint(message, uint64(len(service)))
		message = append(message, service...)
	}
	framed := append([]byte{0}, binary.BigEndian.AppendUint32(nil, uint32(len(message)))...)
	return append(framed, message...)
}

var (
	errFrame   = errors.New("not a single uncompressed message")
	errMessage = errors.New("not a HealthCheckResponse")
)

// servingStatus reads the status, field 1 of a HealthCheckResponse, from a
// gRPC message. It skips other fields.
func servingStatus(framed []byte) (status uint64, err error) {
	if len(framed) < 5 || framed[0] != 0 || int(binary.BigEndian.Uint32(framed[1:])) != len(framed)-5 {
		return 0, errFrame
	}
	for m := framed[5:]; len(m) > 0; {
		key, n := binary.Uvarint(m)
		if n <= 0 {
			return 0, errMessage
		}
		m = m[n:]
		var skip uint64
		switch key & 7 {
		case 0: // a number
			v, n := binary.Uvarint(m)
			if n <= 0 {
				return 0, errMessage
			}
			if key>>3 == 1 {
				status = v
			}
			skip = uint64(n)
		case 1:
			skip = 8
		case 2: // bytes with a length prefix
			v, n := binary.Uvarint(m)
			if n <= 0 {
				return 0, errMessage
			}
			m, skip = m[n:], v
		case 5:
			skip = 4
		default:
			return 0, errMessage
		}
		if skip > uint64(len(m)) {
			return 0, errMessage
		}
		m = m[skip:]
	}
	return status, nil
}
