package image
import ("testing";"os";"time";"github.com/brolga-hpc/brolga/pkg/config";"github.com/brolga-hpc/brolga/pkg/identity";"github.com/brolga-hpc/brolga/pkg/image/ref";"runtime")
func TestZZ(t *testing.T){
 runtime.LockOSThread()
 c,err:=config.Load("/tmp/bt/brolga.toml"); if err!=nil{t.Fatal(err)}
 r,err:=ref.Parse(os.Getenv("ZZREF")); if err!=nil{t.Fatal(err)}
 s:=Source{Config:c,ConfigPath:"/tmp/bt/brolga.toml",User:identity.User{UID:1001,GID:1004,Groups:[]uint32{1001},Name:"brolgatest",Home:"/home/brolgatest"}}
 for range 3 {
 st:=time.Now()
 img,err:=Get(t.Context(),s,r)
 if err!=nil{t.Fatal(err)}
 t.Log(time.Since(st),img.File.Name(),img.Meta.Config)
 img.Close()
 }
}
