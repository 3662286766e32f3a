package httpapi

import (
	"context"
	"net/http"
	"reflect"

	"github.com/keyturn/keyturn/internal/access"
)

// Route is one row of the table: what the router matches, what the OpenAPI document prints, what the matrix test expects.
type Route struct {
	Method  string // GET, POST or DELETE
	Pattern string // "/v1/keys/{key}/rotate": at most one {…}, which stands for one segment
	Summary string // one line for the document
	Public  bool   // answered without credentials; a closed list of five
	// Action is what the doorway is asked for. Empty in a row that is not public: any caller who is known may, because
	// the answer holds nothing but what concerns himself or is in this program's documentation.
	Action access.Action
	Kind   string  // the kind of the resource; its name is the path's {…}, if there is one
	Query  []Param // what may follow the "?"; everything else is refused
	Needs  string  // the one of Query that must be there; empty = none
	handler
}

// Param is one query parameter.
type Param struct {
	Name, Type, Describes string // Type: string, integer, boolean or date-time
}

// handler is how a row is answered.
type handler struct {
	in, out   reflect.Type // of the bodies; nil = none
	stream    bool         // the answer is lines of JSON (application/x-ndjson), each an out
	maxTokens int          // see MaxTokens
	plan      *plan        // of in
	serve     func(*exchange) error
}

// Resource is what the row acts on when its {…} holds name.
func (r *Route) Resource(name string) access.Resource {
	return access.Resource{Kind: r.Kind, Name: name}
}

// In and Out are the types of the request's and the answer's JSON, nil for none; Streams says that the answer is one
// Out a line.
func (r *Route) In() reflect.Type { return r.in }

// Out is the type of the answer.
func (r *Route) Out() reflect.Type { return r.out }

// Streams says that the answer is lines of JSON.
func (r *Route) Streams() bool { return r.stream }

// get makes a handler without a request body.
func get[Out any](f func(context.Context, *access.Caller, *Params) (Out, error)) handler {
	return handler{out: reflect.TypeFor[Out](), serve: func(x *exchange) error {
		out, err := f(x.r.Context(), x.caller, &x.params)
		if err != nil {
			return err
		}
		return x.json(http.StatusOK, out)
	}}
}

// post makes a handler that decodes a request body strictly. A request none of whose members is required may come
// without a body.
func post[In, Out any](f func(context.Context, *access.Caller, *Params, In) (Out, error)) handler {
	h := shaped[In, Out](MaxTokens)
	h.serve = func(x *exchange) error {
		var in In
		if err := x.decode(&in); err != nil {
			return err
		}
		out, err := f(x.r.Context(), x.caller, &x.params, in)
		if err != nil {
			return err
		}
		return x.json(http.StatusOK, out)
	}
	return h
}

// shaped makes a handler that knows its types and doesn't serve yet.
func shaped[In, Out any](maxTokens int) handler {
	in := reflect.TypeFor[In]()
	return handler{in: in, out: reflect.TypeFor[Out](), plan: planOf(in), maxTokens: maxTokens}
}

// batch is post with the token limit of batches.
func batch[In, Out any](f func(context.Context, *access.Caller, *Params, In) (Out, error)) handler {
	h := post(f)
	h.maxTokens = MaxBatchTokens
	return h
}

// act makes a handler without bodies: 204 when it is done.
func act(f func(context.Context, *access.Caller, *Params) error) handler {
	return handler{serve: func(x *exchange) error {
		if err := f(x.r.Context(), x.caller, &x.params); err != nil {
			return err
		}
		x.begin(http.StatusNoContent, x.w.Header())
		return nil
	}}
}

// lines makes a handler that streams one Line a line.
func lines[Line any](f func(context.Context, *access.Caller, *Params, *lineWriter) error) handler {
	return handler{out: reflect.TypeFor[Line](), stream: true, serve: func(x *exchange) error {
		return x.streamTo(func(ctx context.Context, w *lineWriter) error { return f(ctx, x.caller, &x.params, w) })
	}}
}
