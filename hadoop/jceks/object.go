package jceks

import (
	"encoding/binary"
)

// What this package needs of the Java object serialization protocol, version 5.
const (
	streamHeader = 0xACED0005
	baseHandle   = 0x7E0000

	tcNull          = 0x70
	tcReference     = 0x71
	tcClassDesc     = 0x72
	tcObject        = 0x73
	tcString        = 0x74
	tcArray         = 0x75
	tcBlockData     = 0x77
	tcEndBlockData  = 0x78
	tcBlockDataLong = 0x7A

	scWriteMethod  = 0x01
	scSerializable = 0x02
)

// Bounds on a serialized object. What Java seals stays below a tenth of them.
const (
	maxDepth   = 16
	maxHandles = 256
	maxFields  = 64
)

type class struct {
	name   string
	uid    int64
	flags  byte
	fields []field
	super  *class
}

type field struct {
	kind byte // 'I', 'J', 'L', '[', …
	name string
	sig  string // type signature of 'L' and '[' fields
}

// object is a deserialized instance. Values are nil, string, []byte, *object
// or, for primitives, their raw big-endian bytes.
type object struct {
	class  *class
	values map[string]any
	block  []byte // what the class's own writeObject wrote
}

// is reports whether o is an instance of exactly that class and version.
func (o *object) is(name string, uid int64) bool {
	return o.class.name == name && o.class.uid == uid
}

// objectReader reads one object stream. Byte arrays in the result are part of
// the reader's data.
type objectReader struct {
	*reader
	handles []any
}

// readObject reads a stream header and the one object behind it.
func readObject(r *reader) *object {
	if r.uint32() != streamHeader {
		r.fail("no Java object stream")
	}
	or := &objectReader{reader: r}
	o, ok := or.value(0).(*object)
	if !ok {
		r.fail("no Java object")
		return nil
	}
	return o
}

// handle gives v the next handle, by which later parts of the stream refer to it.
func (r *objectReader) handle(v any) int {
	if len(r.handles) == maxHandles {
		r.fail("more than %d objects in one stream", maxHandles)
		return 0
	}
	r.handles = append(r.handles, v)
	return len(r.handles) - 1
}

func (r *objectReader) value(depth int) any {
	if depth > maxDepth {
		r.fail("objects nested more than %d deep", maxDepth)
	}
	code := r.uint8()
	if r.err != nil {
		return nil
	}
	switch code {
	case tcNull:
		return nil
	case tcReference:
		h := int64(r.uint32()) - baseHandle
		if h < 0 || h >= int64(len(r.handles)) || r.handles[h] == nil {
			r.fail("reference to nothing")
			return nil
		}
		return r.handles[h]
	case tcClassDesc:
		return r.classDesc(depth)
	case tcObject:
		return r.object(depth)
	case tcString:
		s := r.utf()
		r.handle(s)
		return s
	case tcArray:
		return r.byteArray(depth)
	}
	r.fail("unsupported object type code %#x", code)
	return nil
}

func (r *objectReader) classValue(depth int) *class {
	switch c := r.value(depth + 1).(type) {
	case *class:
		return c
	case nil:
		return nil
	}
	r.fail("no class where one belongs")
	return nil
}

func (r *objectReader) classDesc(depth int) *class {
	c := &class{name: r.utf(), uid: r.int64()}
	r.handle(c)
	c.flags = r.uint8()
	n := r.uint16()
	if n > maxFields {
		r.fail("class with %d fields", n)
	}
	for i := 0; i < n && r.err == nil; i++ {
		f := field{kind: r.uint8(), name: r.utf()}
		if f.kind == 'L' || f.kind == '[' {
			f.sig, _ = r.value(depth + 1).(string)
		}
		c.fields = append(c.fields, f)
	}
	if r.uint8() != tcEndBlockData {
		r.fail("annotated class")
	}
	c.super = r.classValue(depth)
	return c
}

func (r *objectReader) object(depth int) *object {
	o := &object{class: r.classValue(depth), values: make(map[string]any)}
	if o.class == nil {
		r.fail("object without class")
		return nil
	}
	r.handle(o)
	r.classData(o, o.class, depth)
	return o
}

// classData reads the part of o that class c declares, after those of c's
// superclasses.
func (r *objectReader) classData(o *object, c *class, depth int) {
	if depth > maxDepth {
		r.fail("objects nested more than %d deep", maxDepth)
	}
	if r.err != nil {
		return
	}
	if c.super != nil {
		r.classData(o, c.super, depth+1)
	}
	switch c.flags {
	case scSerializable:
		for _, f := range c.fields {
			o.values[f.name] = r.fieldValue(f, depth)
		}
	case scSerializable | scWriteMethod:
		// A writeObject method may begin with the declared fields or not; the
		// stream does not say. Hadoop's KeyMetadata, the one class here that has
		// such a method, does not.
		o.block = append(o.block, r.blockData()...)
	default:
		r.fail("class %q with flags %#x", c.name, c.flags)
	}
}

func (r *objectReader) fieldValue(f field, depth int) any {
	switch f.kind {
	case 'B', 'Z':
		return r.bytes(1)
	case 'C', 'S':
		return r.bytes(2)
	case 'F', 'I':
		return r.bytes(4)
	case 'D', 'J':
		return r.bytes(8)
	case 'L', '[':
		return r.value(depth + 1)
	}
	r.fail("field of unknown type %q", f.kind)
	return nil
}

// blockData joins the blocks up to the end mark.
func (r *objectReader) blockData() []byte {
	var data []byte
	for r.err == nil {
		switch code := r.uint8(); code {
		case tcEndBlockData:
			return data
		case tcBlockData:
			data = append(data, r.bytes(int(r.uint8()))...)
		case tcBlockDataLong:
			data = append(data, r.bytes(r.length())...)
		default:
			r.fail("object inside block data")
		}
	}
	return nil
}

func (r *objectReader) byteArray(depth int) []byte {
	if c := r.classValue(depth); c == nil || c.name != "[B" {
		r.fail("array of something else than bytes")
	}
	h := r.handle(nil)
	b := r.bytes(r.length())
	if r.err == nil {
		r.handles[h] = b
	}
	return b
}

// objectWriter writes one object stream with the handles Java would use.
type objectWriter struct {
	buf     []byte
	handles map[string]int // by what they stand for: "class [B", "signature [B"
	next    int
}

func newObjectWriter(dst []byte) *objectWriter {
	return &objectWriter{buf: binary.BigEndian.AppendUint32(dst, streamHeader), handles: make(map[string]int)}
}

// shared writes a reference if what key names was written before, and reports
// whether it did.
func (w *objectWriter) shared(key string) bool {
	h, ok := w.handles[key]
	if ok {
		w.buf = append(w.buf, tcReference)
		w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(baseHandle+h))
		return true
	}
	w.handles[key] = w.next
	w.next++
	return false
}

// utf writes a string that is known to be valid UTF-8 and short.
func (w *objectWriter) utf(s string) {
	w.buf, _ = appendUTF(w.buf, s)
}

// signature writes a type signature. Java interns those, so each is written
// once and referred to after.
func (w *objectWriter) signature(s string) {
	if !w.shared("signature " + s) {
		w.buf = append(w.buf, tcString)
		w.utf(s)
	}
}

// string writes a string value.
func (w *objectWriter) string(s string) {
	w.buf = append(w.buf, tcString)
	w.utf(s)
	w.next++
}

func (w *objectWriter) class(c *class) {
	switch {
	case c == nil:
		w.buf = append(w.buf, tcNull)
	case !w.shared("class " + c.name):
		w.buf = append(w.buf, tcClassDesc)
		w.utf(c.name)
		w.buf = binary.BigEndian.AppendUint64(w.buf, uint64(c.uid))
		w.buf = append(w.buf, c.flags)
		w.buf = binary.BigEndian.AppendUint16(w.buf, uint16(len(c.fields)))
		for _, f := range c.fields {
			w.buf = append(w.buf, f.kind)
			w.utf(f.name)
			w.signature(f.sig)
		}
		w.buf = append(w.buf, tcEndBlockData)
		w.class(c.super)
	}
}

// object begins an instance of c; its field values follow.
func (w *objectWriter) object(c *class) {
	w.buf = append(w.buf, tcObject)
	w.class(c)
	w.next++
}

func (w *objectWriter) byteArray(b []byte) {
	w.buf = append(w.buf, tcArray)
	w.class(byteArrayClass)
	w.next++
	w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(len(b)))
	w.buf = append(w.buf, b...)
}

// blockData writes data as a writeObject method leaves it: in blocks of at
// most 1024 bytes, then the end mark.
func (w *objectWriter) blockData(data []byte) {
	for len(data) > 0 {
		n := min(len(data), 1024)
		if n <= 0xFF {
			w.buf = append(w.buf, tcBlockData, byte(n))
		} else {
			w.buf = append(w.buf, tcBlockDataLong)
			w.buf = binary.BigEndian.AppendUint32(w.buf, uint32(n))
		}
		w.buf = append(w.buf, data[:n]...)
		data = data[n:]
	}
	w.buf = append(w.buf, tcEndBlockData)
}
